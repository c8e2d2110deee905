"""Collecting records the episodes asked for, once each, and goes on; playing films them."""

import os
import signal
import subprocess
import sys
import time

import imageio.v3 as iio
import numpy as np
import pytest

from umwelten import cli
from umwelten.agents.policy import Replay
from umwelten.envs.env import BatchEnv
from umwelten.episodes import Episodes
from umwelten.rollout import rollout


def collect(folder, *arguments):
    return cli.main(["collect", *arguments, f"out={folder}"])


def test_exactly_the_episodes_asked_for_and_a_video_of_the_first(tmp_path, capsys):
    folder = tmp_path / "data"
    assert (
        collect(folder, "task=reach", "episodes=7", "n=3", "seed=20", "labels=true", "video=1") == 0
    )
    data = Episodes(folder)
    assert len(data) == 7 and (data.lengths == 51).all()
    assert sorted(data.column("episode/seed").tolist()) == list(range(20, 27))
    assert data.stats()["success"] == 1 and "label/subtask" in data.keys
    assert data.info["task"] == "Reach" and data.info["policy"] == "Expert"
    assert len(set(data.column("episode/id").tolist())) == 7
    frames = iio.imread(folder / "first.mp4")
    assert frames.shape == (51, 480, 480, 3) and frames.std() > 20
    assert iio.immeta(folder / "first.mp4")["fps"] == 10
    out = capsys.readouterr().out
    assert "7 episodes more" in out and out.count(": done") == 1


def test_an_episode_is_its_seeds_whatever_the_rows_at_a_time(tmp_path):
    shared = ["task=push", "policy=random", "episodes=4", "video=0", "physics=true"]
    for name, n in (("a", "n=1"), ("b", "n=3")):
        assert collect(tmp_path / name, *shared, n) == 0
    found = []
    for name in "ab":
        data = Episodes(tmp_path / name)
        seeds = data.column("episode/seed").tolist()
        found.append(dict(zip(seeds, data.column("episode/id").tolist(), strict=True)))
    assert found[0] == found[1] and found[0].keys() == {0, 1, 2, 3}
    # and it can be played again from its seed and actions alone
    i = data.column("episode/seed").tolist().index(2)
    told = data.episode(i)
    env = BatchEnv("Push", 1, physics=True)
    for t, step in enumerate(rollout(env, Replay(told["action"]), 2, episodes_per_row=1)):
        for key in ("physics", "objects", "reward", "instruction"):
            assert np.array_equal(step[key][0], told[key][t]), key


def test_the_same_command_again_records_nothing_twice_and_a_larger_one_what_is_missing(
    tmp_path, capsys
):
    shared = ["task=reach", "policy=random", "video=0", "n=4"]
    for episodes, more in ((3, 3), (3, 0), (9, 6), (5, 0)):
        assert collect(tmp_path, *shared, f"episodes={episodes}") == 0
        assert f"{more} episodes more" in capsys.readouterr().out
    data = Episodes(tmp_path)
    assert sorted(data.column("episode/seed").tolist()) == list(range(9))
    whole = tmp_path / "whole"
    assert collect(whole, *shared, "episodes=9") == 0
    assert set(Episodes(whole).column("episode/id")) == set(data.column("episode/id"))


def test_a_collection_that_is_killed_goes_on(tmp_path):
    arguments = ["task=push", "policy=random", "video=0", "n=2", "episodes=12"]
    command = [sys.executable, "-m", "umwelten", "collect", *arguments, f"out={tmp_path / 'a'}"]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        while process.poll() is None and not list(tmp_path.glob("a/shard-*")):
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    some = len(Episodes(tmp_path / "a"))
    assert 2 <= some < 12
    for name in "ab":
        assert collect(tmp_path / name, *arguments) == 0
    a, b = (Episodes(tmp_path / name).column("episode/id").tolist() for name in "ab")
    assert len(a) == 12 and set(a) == set(b)


def test_another_kind_of_episodes_is_kept_apart(tmp_path, capsys):
    shared = ["task=reach", "policy=random", "episodes=1", "video=0"]
    assert collect(tmp_path, *shared) == 0
    for change, named in (
        ("policy=expert", "policy"), ("task=push", "task"), ("labels=true", "labels"),
        ("action_repeat=2", "action_repeat"), ("cameras=[front]", "cameras"),
    ):  # fmt: skip
        assert collect(tmp_path, *shared, change) == 2
        error = capsys.readouterr().err
        assert named in error and "choose another out=" in error and error.count("\n") == 1
    assert len(Episodes(tmp_path)) == 1


def test_cameras_and_repeats_are_recorded(tmp_path):
    told = ["task=pick_place", "episodes=2", "cameras=[front,wrist]", "size=32", "video=0"]
    assert collect(tmp_path, *told, "action_repeat=4") == 0
    data = Episodes(tmp_path)
    episode = data.episode(0)
    assert (data.lengths == 21).all()
    np.testing.assert_allclose(np.diff(episode["time"]), 0.4)
    assert episode["rgb/front"].shape == (21, 32, 32, 3) and episode["rgb/front"].dtype == np.uint8
    assert episode["depth/wrist"].shape == (21, 32, 32)
    assert episode["segmentation/front"].dtype == np.int32
    assert episode["rgb/front"][0].std() > 5
    assert not np.array_equal(episode["rgb/wrist"][0], episode["rgb/wrist"][5])


def test_the_expert_can_be_watched(tmp_path, capsys):
    path = tmp_path / "play.mp4"
    arguments = ["play", "task=push", "episodes=2", "seed=3", "action_repeat=10", f"out={path}"]
    assert cli.main(arguments) == 0
    assert len(iio.imread(path)) == 2 * 11
    world = BatchEnv("Push", 2)
    world.reset(seed=3)
    out = capsys.readouterr().out
    assert all(f"{words}: " in out for words in world.words()) and str(path) in out


def test_a_world_without_words_can_be_watched(tmp_path, capsys):
    path = tmp_path / "play.mp4"
    arguments = ["play", "task=cartpole_balance", "policy=random", f"out={path}"]
    assert cli.main([*arguments, "action_repeat=20"]) == 0
    assert len(iio.imread(path)) == 51 and "cartpole_balance: not done" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["collect", "play"])
@pytest.mark.parametrize("arguments, says", [
    (["task=pick_plac"], "did you mean 'pick_place'"),
    (["task=cartpole_swingup"], "CartpoleSwingup has no scripted expert"),
    (["task=reach", "policy=prior"], "policy=prior is a trained model's"),
    (["task=reach", "run=nowhere", "policy=mppi"], "nowhere holds no run"),
    (["task=reach", "episods=3"], "did you mean 'episodes'"),
    (["task=reach", "episodes=0"], "episodes=0"),
    (["task=reach", "policy=mpi"], "did you mean 'mppi'"),
])  # fmt: skip
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(
    verb, arguments, says, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert cli.main([verb, *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_cameras_that_are_none_are_refused(tmp_path, capsys):
    assert collect(tmp_path / "x", "task=reach", "cameras=[frnt]") == 2
    assert "front" in capsys.readouterr().err and not (tmp_path / "x").exists()


def test_a_world_is_recorded_with_what_it_was_made_with(tmp_path, capsys):
    world = ["world.robot=panda", "world.senses=[imu]", "world.vary=[mass]"]
    asked = ["task=pick_place", "episodes=2", "n=2", "video=0"]
    assert collect(tmp_path / "data", *asked, *world) == 0
    there = Episodes(tmp_path / "data")
    assert there.info["world"] == {"robot": "panda", "senses": ["imu"], "vary": ["mass"]}
    assert "imu" in there.keys
    for other, line in (
        ([], "holds episodes of another fingerprint, world"),
        (["world.robt=panda"], "no key 'robt' for world; did you mean 'robot'"),
        (["world.size=3"], "size: give it without the `world.`"),
        (["world.robot=pand"], "no robot 'pand'; did you mean 'panda'?"),
    ):
        assert collect(tmp_path / "data", *asked, *other) != 0
        assert line in capsys.readouterr().err
