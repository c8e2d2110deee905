"""Batches are the windows that Episodes would give, wherever the steps lie."""

from hashlib import sha256

import numpy as np
import pytest
import torch

from umwelten.episodes import Episodes, Recorder
from umwelten.replay import Replay


def record(path, seed, episodes=3, image=False):
    """Writes shards of one episode each; `image` makes steps that are mapped, not read."""
    rng = np.random.default_rng(seed)
    with Recorder(path) as recorder:
        for _ in range(episodes):
            steps = int(rng.integers(6, 20))
            for t in range(steps):
                step = {
                    "proprio": rng.normal(size=(1, 5)).astype(np.float32),
                    "count": np.array([t], np.int32),
                    "reward": rng.random(1, np.float32),
                    "action": rng.random((1, 2), np.float32),
                    "first": np.array([t == 0]), "last": np.array([t == steps - 1]),
                    "terminal": np.zeros(1, bool), "valid": rng.random(1) > 0.05,
                    "label/touch": rng.random((1, 3)) > 0.5,
                }  # fmt: skip
                if image:
                    step["rgb/a"] = rng.integers(0, 255, (1, 64, 1200, 3), np.uint8)
                recorder.add(step)


def same(batch, expected):
    assert batch.keys() == expected.keys() | {"place"}
    for key, value in expected.items():
        assert batch[key].dtype == torch.from_numpy(value).dtype
        assert np.array_equal(batch[key].numpy(), value), key


@pytest.mark.parametrize("image", [False, True])
@pytest.mark.parametrize("room", [None, 1 << 30])
def test_windows_are_bit_for_bit_those_of_episodes_while_shards_appear(tmp_path, room, image):
    record(tmp_path, 0, image=image)
    plain, replay = Episodes(tmp_path), Replay(Episodes(tmp_path), "cpu", room)
    assert replay.resident == (room is not None)
    for i in range(4):
        for b, t in ((7, 4), (3, 1), (5, 6)):
            ours, theirs = (np.random.default_rng(i) for _ in range(2))
            same(replay.sample(ours, b, t), plain.sample(theirs, b, t))
            assert ours.bit_generator.state == theirs.bit_generator.state
        record(tmp_path, i + 1, episodes=2, image=image)
        assert plain.refresh() == replay.refresh() == 2


def test_places_stay_as_shards_appear_and_let_something_be_kept_beside_each_step(tmp_path):
    record(tmp_path, 0)
    replay = Replay(Episodes(tmp_path), "cpu", 1 << 30)
    rng = np.random.default_rng(0)
    places = replay.episodes.draw(rng, 20, 4)
    before = replay.read(places, 4)
    assert np.array_equal(before["place"].numpy(), places[:, None] + np.arange(-1, 4))
    beside = torch.full((replay.episodes.steps,), -1)
    beside[before["place"][:, 1:]] = before["count"].long()
    record(tmp_path, 1)
    replay.refresh()
    for key, value in replay.read(places, 4).items():
        assert torch.equal(value, before[key])
    # what was kept by one window is found by another that shares steps with it
    again = replay.sample(rng, 50, 3)
    places = again["place"][:, 1:]
    there = places < len(beside)
    kept = beside[places[there]]
    assert (kept >= 0).any() and (kept[kept >= 0] == again["count"][there][kept >= 0]).all()


def test_steps_that_need_too_much_room_are_read_on_the_host(tmp_path):
    record(tmp_path, 0)
    steps = Episodes(tmp_path)
    size = steps.steps * sum(
        v[0].nbytes for v in steps.read(np.zeros(1, np.int64), 1).values() for v in v
    )
    replay = Replay(Episodes(tmp_path), "cpu", size)
    assert replay.resident and not Replay(Episodes(tmp_path), "cpu", size - 1).resident
    record(tmp_path, 1)
    replay.refresh()
    steps.refresh()
    assert not replay.resident
    ours, theirs = (np.random.default_rng(3) for _ in range(2))
    same(replay.sample(ours, 9, 4), steps.sample(theirs, 9, 4))


def test_a_view_of_a_split_draws_its_own_windows(tmp_path):
    record(tmp_path, 0, episodes=12)
    for part in Episodes(tmp_path).split(1, (0.5, 0.5)):
        replay = Replay(part, "cpu", 1 << 30)
        ours, theirs = (np.random.default_rng(3) for _ in range(2))
        same(replay.sample(ours, 40, 4), part.sample(theirs, 40, 4))


def test_an_empty_folder_says_what_episodes_says(tmp_path):
    replay = Replay(Episodes(str(tmp_path)), "cpu", 1 << 30)
    with pytest.raises(ValueError, match="no window of 4 valid steps"):
        replay.sample(np.random.default_rng(0), 2, 4)
    record(tmp_path, 0)
    replay.refresh()
    assert replay.sample(np.random.default_rng(0), 2, 4)["proprio"].shape == (2, 4, 5)


def test_draws_are_those_of_every_version_before(tmp_path):
    record(tmp_path, 0)
    replay, rng, digest = Replay(Episodes(tmp_path), "cpu"), np.random.default_rng(0), sha256()
    for i in range(6):
        digest.update(replay.sample(rng, 16, 4)["place"][:, 1].numpy().astype("<i8").tobytes())
        record(tmp_path, i + 1, episodes=2)
        replay.refresh()
    assert digest.hexdigest()[:16] == "dbb69d00d6bce4e0"
