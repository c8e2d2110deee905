"""Promises of the comparison with peers, held without a peer: its lists, its sides, its ratios."""

from __future__ import annotations

import ast
import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from umwelten import registry

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def peers(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import peers

    return peers


def test_the_script_that_runs_at_a_peer_needs_only_numpy_at_first():
    tree = ast.parse((BENCHMARKS / "peer.py").read_bytes())
    modules = {a.name.partition(".")[0] for n in tree.body for a in getattr(n, "names", ())}
    froms = {n.module.partition(".")[0] for n in tree.body if isinstance(n, ast.ImportFrom)}
    assert modules & {"umwelten", "record", "gymnasium", "mujoco"} == set()
    assert froms <= {"__future__", "collections", "dataclasses", "pathlib"}


def test_every_world_has_a_maker_and_every_kind_a_row(peers):
    kinds = {kind for row, _ in peers.ROWS.values() for kind in row}
    for task, worlds in peers.LIKE.items():
        assert registry.find("envs", task).name == task
        for name in [world.partition("/")[0] for world in worlds.split()]:
            assert name in peers.peer.PEERS
            assert set(peers.KINDS.get(name, peers.ANY)) <= kinds


def test_a_peer_that_is_missing_is_noted_and_starts_nothing(peers, tmp_path):
    side = peers.Side("envpool/WalkerWalk-v1", "state", tmp_path).start()
    side.take_turn(1.0)
    assert side.close() == {
        "world": "envpool/WalkerWalk-v1",
        "kind": "state",
        "note": "not installed",
    }


def test_a_peer_that_fails_leaves_its_last_words_without_a_path(peers, tmp_path):
    python = tmp_path / "envpool" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho noise\necho 'no such file: /a/deep/place/it' >&2\nexit 3\n")
    python.chmod(0o755)
    side = peers.Side("envpool/WalkerWalk-v1", "state", tmp_path).start()
    side.take_turn(1.0)
    assert side.close()["note"] == "no such file: it"


def test_turns_become_medians_ranges_and_simulated_time(peers, tmp_path):
    python = tmp_path / "envpool" / "bin" / "python"
    python.parent.mkdir(parents=True)
    told = [{"make_cpu_s": 1.0, "dt": 0.5}]
    told += [{"per_cpu_s": v, "per_s": 2 * v} for v in (30.0, 10.0, 20.0)]
    lines = "".join(f"read go\necho '{json.dumps(line)}'\n" for line in told).partition("\n")[2]
    python.write_text(f"#!/bin/sh\n{lines}")
    python.chmod(0o755)
    side = peers.Side("envpool/WalkerWalk-v1", "native", tmp_path).start()
    for _ in range(3):
        side.take_turn(0.1)
    entry = side.close()
    assert (entry["per_cpu_s"], entry["per_cpu_s_range"]) == (20.0, [10.0, 30.0])
    assert (entry["real_time_factor"], entry["simulated_s_per_s"]) == (10.0, 20.0)


def test_goals_sort_ratios_and_tell_where_a_peer_is_ahead(peers):
    def entry(world, kind, **ratios):
        return {"world": world, "kind": kind, "ours_over_it": ratios}

    vector = [entry("gymnasium/walker", "sync", per_s=6.0), entry("envpool/W", "native", per_s=0.9)]
    table = {
        "WalkerWalk": {"vector": vector, "rgb64": [entry("a/b", "rgb64", per_cpu_s=60.0)]},
        "Lift": {"state": [entry("robosuite/Lift", "state", per_cpu_s=9.0, make_cpu_s=0.5)]},
    }
    met = peers.goals(table)
    assert met["5 x Gymnasium's vectors"] == {"gymnasium/walker sync per_s": 6.0}
    assert met["1 x EnvPool"] == {"envpool/W native per_s": 0.9}
    assert met["50 x pictures"] == {"a/b rgb64 per_cpu_s": 60.0}
    assert met["behind"] == {"robosuite/Lift state make_cpu_s": 0.5}


def test_rates_count_the_steps_of_all_rows(peers, monkeypatch):
    done, ticks = [], itertools.count(0.0, 0.5)  # s: every look at a clock is half a second later
    clock = SimpleNamespace(perf_counter=lambda: next(ticks), process_time=lambda: next(ticks))
    monkeypatch.setattr(peers.peer, "time", clock)
    world = peers.peer.World(lambda: done.append(1), lambda: None, None, rows=64)
    found = peers.peer.measure(world, seconds=2.0)
    assert len(done) == 3
    assert found == {"per_cpu_s": 3 * 64 / 2.0, "per_s": 3 * 64 / 3.0}


def test_an_unknown_task_is_refused(peers, capsys):
    with pytest.raises(SystemExit):
        peers.main(["--tasks", "Nothing"])
    assert "WalkerWalk" in capsys.readouterr().err
