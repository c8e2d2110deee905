"""A run's folder belongs to one process, its metrics survive a kill, views only show them."""

import json
import os
import signal
import subprocess
import sys

import pytest

from umwelten.run import Run

HOLDER = """
import sys, time
from umwelten.run import Run
with Run(sys.argv[1]) as run:
    run.log(kind="train", updates=1, env_steps=0, loss=0.5)
    print("open", flush=True)
    time.sleep(60)
"""


def hold(path):
    """A process that has the run open."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "open\n"
    return process


def test_a_run_that_is_open_elsewhere_is_refused_until_its_process_is_gone(tmp_path):
    process = hold(tmp_path)
    try:
        with pytest.raises(RuntimeError, match=f"is in use by process {process.pid}; wait for it"):
            Run(tmp_path)
        with pytest.raises(RuntimeError, match=str(process.pid)):  # asking does not disturb it
            Run(tmp_path)
        process.send_signal(signal.SIGKILL)  # no chance to tidy up
        process.wait(30)
        with Run(tmp_path) as run:
            assert run.metrics() == [{"kind": "train", "updates": 1, "env_steps": 0, "loss": 0.5}]
            assert (tmp_path / "lock").read_text() == str(os.getpid())
    finally:
        process.kill()
        process.wait(30)


def test_a_closed_run_can_be_opened_again_here(tmp_path):
    with Run(tmp_path / "a" / "b") as run:
        with pytest.raises(RuntimeError, match=str(os.getpid())):
            Run(run.path)
    with Run(run.path):
        pass
    with pytest.raises(ZeroDivisionError), Run(run.path):
        raise ZeroDivisionError
    Run(run.path).close()


def test_lines_come_back_in_order_and_a_torn_last_one_is_left_out(tmp_path):
    with Run(tmp_path) as run:
        assert run.metrics() == []
        for k in range(5):
            run.log(kind="train", updates=k, env_steps=2 * k, loss=0.1 * k, note="x\ny")
        whole = run.metrics()
        assert [m["updates"] for m in whole] == list(range(5)) and whole[2]["note"] == "x\ny"
        assert whole[3]["loss"] == 0.1 * 3  # to the bit
        raw = (tmp_path / "metrics.jsonl").read_bytes()
        for cut in range(1, len(raw) - raw[:-1].rfind(b"\n") - 1):
            (tmp_path / "metrics.jsonl").write_bytes(raw[:-cut])
            expected = whole if cut == 1 else whole[:4]  # without its newline it is still whole
            assert run.metrics() == expected


def test_after_a_torn_line_the_next_one_is_not_lost(tmp_path):
    with Run(tmp_path) as run:
        run.log(kind="train", updates=1, env_steps=0)
        run.log(kind="train", updates=2, env_steps=0)
        path = tmp_path / "metrics.jsonl"
        path.write_bytes(path.read_bytes()[:-9])
    with Run(tmp_path) as run:
        run.forget(10**9)  # as a resumed training does
        run.log(kind="train", updates=3, env_steps=0)
        assert [m["updates"] for m in run.metrics()] == [1, 3]
    assert path.read_bytes().count(b"\n") == 2


def test_what_came_later_than_the_checkpoint_is_forgotten(tmp_path):
    with Run(tmp_path) as run:
        for k in range(6):
            run.log(kind="episode", updates=k, env_steps=10 * k, **{"return": float(k)})
        run.forget(33)
        assert [m["updates"] for m in run.metrics()] == [0, 1, 2, 3]
        run.forget(-1)
        assert run.metrics() == []
    assert not list(tmp_path.glob("*.tmp"))


def test_numbers_that_are_none_are_logged_and_read_back(tmp_path):
    with Run(tmp_path) as run:
        run.log(kind="train", updates=1, env_steps=0, loss=float("nan"), top=float("inf"))
        (line,) = run.metrics()
        assert line["loss"] != line["loss"] and line["top"] == float("inf")


def test_tensorboard_shows_the_same_numbers(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Run(tmp_path) as run:
        for k in range(3):
            run.log(kind="train", updates=k, env_steps=10 * k, loss=1.0 / (k + 1))
        run.log(kind="train", updates=3, env_steps=30, loss=float("nan"))
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    shown = [(e.step, e.value) for e in board.Scalars("train/loss")]
    assert shown == [(0, 1.0), (1, 0.5), (2, pytest.approx(1 / 3))]
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])["loss"] == 1.0


def test_scores_and_episodes_of_one_name_are_told_apart_on_the_board(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Run(tmp_path) as run:
        run.log(kind="episode", updates=0, env_steps=10, **{"return": 3.0})
        run.log(kind="score", updates=0, env_steps=10, **{"return": 40.0})
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [e.value for e in board.Scalars("episode/return")] == [3.0]
    assert [(e.step, e.value) for e in board.Scalars("score/return")] == [(10, 40.0)]
