"""Every step is learnt from as it comes: whole windows of the right steps, each once and first."""

import numpy as np
import pytest
import torch

from umwelten.episodes import Episodes, Recorder
from umwelten.replay import Replay
from umwelten.stream import Stream

T = 4  # steps of a window


class World:
    """Steps of n rows as a rollout gives them, with some that are not valid; it keeps them all."""

    def __init__(self, n, seed, image=False, faults=0.04, idle=0.0):
        self.n, self.rng, self.image = n, np.random.default_rng(seed), image
        self.faults, self.idle = faults, idle
        self.inside = np.zeros(n, bool)
        self.rows = [[] for _ in range(n)]  # what was recorded of each

    def step(self):
        n, rng = self.n, self.rng
        first = ~self.inside & (rng.random(n) >= self.idle)
        inside = self.inside | first
        last = inside & ~first & (rng.random(n) < 0.12)
        step = {
            "x": rng.normal(size=(n, 3)).astype(np.float32),
            "reward": rng.random(n, np.float32), "action": rng.random((n, 2), np.float32),
            "first": first, "last": last, "terminal": last & (rng.random(n) < 0.5),
            "valid": inside & (rng.random(n) >= self.faults),
        }  # fmt: skip
        if self.image:
            step["rgb/a"] = rng.integers(0, 255, (n, 64, 1200, 3), np.uint8)
        for row in np.flatnonzero(inside).tolist():
            self.rows[row].append({k: v[row] for k, v in step.items()})
        self.inside = inside & ~last
        return step


def opened(path, n, room=None, others=None):
    keys = ("x", "action", "reward", "first", "last", "terminal", "valid")
    own = Replay(Episodes(path, keys), "cpu", room)
    return Stream(own, n, others and Replay(Episodes(others, keys), "cpu", room))


def check(batch, world, at=slice(None)):
    """Holds windows to the steps that their places name; returns row and first step of each."""
    place, n = batch["place"][at].numpy(), world.n
    row, k = place[:, 1] % n, place[:, 1] // n
    for i, (r, a) in enumerate(zip(row, k, strict=True)):
        assert place[i, 1:].tolist() == [(a + j) * n + r for j in range(T)]
        assert place[i, 0] == (place[i, 1] - n if a else -1)
        for key, value in batch.items():
            if key != "place":
                want = np.stack([step[key] for step in world.rows[r][a : a + T]])
                assert value.dtype == torch.from_numpy(want).dtype
                assert np.array_equal(value[at][i].numpy(), want), key
    return list(zip(row.tolist(), k.tolist(), strict=True))


def windows(world, t=T):
    """Returns row and first step of all windows of valid steps, by looking at each."""
    found = []
    for row, steps in enumerate(world.rows):
        for a in range(len(steps) - t + 1):
            if all(step["valid"] for step in steps[a : a + t]):
                found.append((row, a))
    return found


def new(world):
    """Returns row and first step of all windows that are new once, by looking at each."""
    found, valid = [], set(windows(world))
    for row in range(world.n):
        a = 0
        while a + T <= len(world.rows[row]):
            if (row, a) in valid:
                found.append((row, a))
                a += T
            else:
                a += 1
    return found


@pytest.mark.parametrize("n, room, faults, idle", [
    (1, None, 0.04, 0), (3, None, 0.04, 0), (3, 1 << 30, 0.04, 0), (2, None, 0, 0.3),
])  # fmt: skip
def test_each_step_is_served_once_as_soon_as_it_can_be_whole_and_right(
    tmp_path, n, room, faults, idle
):
    world, rng = World(n, 1, faults=faults, idle=idle), np.random.default_rng(0)
    served, unfinished = [], 0
    with Recorder(tmp_path) as recorder:
        stream = opened(tmp_path, n, room)
        for i in range(151):
            step = world.step()
            recorder.add(step)
            place = stream.add(step)
            count = np.array([len(rows) for rows in world.rows])
            inside = step["first"] | (place >= 0)
            assert np.array_equal(place, np.where(inside, (count - 1) * n + np.arange(n), -1))
            every = windows(world)
            assert stream.count(T) == len(every)
            if i % 5 or not every:
                continue
            due = set(new(world)) - set(served)
            found = check(stream.sample(rng, 12, T), world)
            assert set(found) <= set(every)
            first = found[: len(due)] if len(due) < 12 else found
            assert set(first) <= due and len(set(first)) == len(first) == min(len(due), 12)
            assert [a for _, a in first] == sorted(a for _, a in first)
            served += first
            recorded = [int(stream._begin[row]) for row in range(n)]
            unfinished += sum(a + T > recorded[row] for row, a in first)
    assert unfinished > 10  # of an episode that was going on
    assert sorted(served) == new(world) and len(served) > 25 * n
    steps = [(row, a + j) for row, a in served for j in range(T)]
    assert len(steps) == len(set(steps))
    if not faults:  # then none is left out but those that do not fill a window yet
        left = sum(len(rows) % T for rows in world.rows)
        assert len(steps) == sum(map(len, world.rows)) - left


def test_all_windows_are_drawn_alike_often_those_of_unfinished_episodes_too(tmp_path):
    world, rng, seen = World(3, 2), np.random.default_rng(0), {}
    with Recorder(tmp_path) as recorder:
        stream = opened(tmp_path, 3)
        for _ in range(25):
            step = world.step()
            recorder.add(step)
            stream.add(step)
    every = windows(world)
    assert {True, False} == {a + T > stream._begin[row] for row, a in every}
    stream.sample(rng, 40, T)  # those that are new
    for found in check(stream.sample(rng, 200 * len(every), T), world):
        seen[found] = seen.get(found, 0) + 1
    assert seen.keys() == set(every)
    assert 130 < min(seen.values()) and max(seen.values()) < 270  # five deviations of 200


def test_other_folders_count_as_their_windows_do_and_their_places_are_their_own(tmp_path):
    theirs = World(1, 5, faults=0)
    with Recorder(tmp_path / "others") as recorder:
        while len(theirs.rows[0]) < 60 or theirs.inside.any():
            recorder.add(theirs.step())
    world, rng = World(2, 3), np.random.default_rng(0)
    with Recorder(tmp_path / "own") as recorder:
        stream = opened(tmp_path / "own", 2, others=tmp_path / "others")
        mine = stream.sample(rng, 5, T)  # before anything was done, all are the others'
        assert (mine["place"][:, 1:] < -1).all()
        for _ in range(40):
            step = world.step()
            recorder.add(step)
            stream.add(step)
        stream.sample(rng, 40, T)
        batch = stream.sample(rng, 4000, T)
    other = batch["place"][:, 1] < 0
    inside = stream.others.episodes.count(T)
    assert stream.count(T) == inside + len(windows(world))
    assert abs(int(other.sum()) / 4000 - inside / stream.count(T)) < 0.04
    check(batch, world, ~other)
    place = -2 - batch["place"][other].numpy()
    assert np.array_equal(place, place[:, :1] + np.arange(T + 1)) and place.min() == -1
    for at, x in zip(place[:, 1:], batch["x"][other].numpy(), strict=True):
        assert np.array_equal(x, np.stack([theirs.rows[0][s]["x"] for s in at]))


@pytest.mark.parametrize("room", [None, 1 << 30])
def test_what_is_restored_gives_the_same_batches_from_there_on(tmp_path, room):
    world = World(3, 4, idle=0.1)
    rngs = [np.random.default_rng(0) for _ in range(2)]
    with Recorder(tmp_path) as recorder:
        one, hands = opened(tmp_path, 3, room), 0
        for i in range(80):
            step = world.step()
            recorder.add(step)
            one.add(step)
            if i % 7 == 3:
                hand = recorder.in_hand()
                hands += bool(hand) and int(hand["hand/length"].max()) > T
                two = opened(tmp_path, 3, room)
                two.restore(one.save(), hand)
            if i > 3:
                if i % 7 != 3:
                    two.add(step)
                batches = [s.sample(r, 9, T) for s, r in zip((one, two), rngs, strict=True)]
                check(batches[0], world)
                assert all(torch.equal(v, batches[1][k]) for k, v in batches[0].items())
                assert rngs[0].bit_generator.state == rngs[1].bit_generator.state
                a, b = one.save(), two.save()
                assert a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)
    assert hands > 3


def test_windows_of_mapped_pictures_are_right_too(tmp_path):
    world, rng = World(2, 0, image=True, faults=0), np.random.default_rng(0)
    with Recorder(tmp_path) as recorder:
        stream = Stream(Replay(Episodes(tmp_path), "cpu"), 2)
        for i in range(24):
            step = world.step()
            recorder.add(step)
            stream.add(step)
            if i > 4 and i % 3 == 0:
                batch = stream.sample(rng, 6, T)
                assert "rgb/a" in batch
                check(batch, world)
    assert len(stream.own.episodes) > 1


def test_what_is_held_is_the_episodes_in_hand_and_no_more(tmp_path):
    world = World(4, 6, faults=0)
    with Recorder(tmp_path) as recorder:
        stream = opened(tmp_path, 4)
        for _ in range(400):
            step = world.step()
            recorder.add(step)
            stream.add(step)
    longest = int(stream.own.episodes.lengths.max())
    assert len(stream.own.episodes) > 100 and stream._hand["x"].shape[1] <= 2 * longest + 32


def test_an_intruder_and_a_checkpoint_of_another_folder_are_refused(tmp_path):
    world = World(1, 7)
    with Recorder(tmp_path) as recorder, pytest.raises(RuntimeError, match="nobody else write"):
        stream = opened(tmp_path, 1)
        while True:
            step = world.step()
            recorder.add(step)
            if step["last"].any():
                with Recorder(tmp_path) as other:
                    for first, last in ((True, False), (False, True)):
                        flags = {"first": np.array([first]), "last": np.array([last])}
                        other.add(step | flags)
            stream.add(step)
    with pytest.raises(ValueError, match=r"the rows of 0 episodes .* a folder of 2; train"):
        opened(tmp_path, 1).restore({}, {})
    with pytest.raises(ValueError, match="no window of 4 valid steps yet"):
        opened(tmp_path, 1).sample(np.random.default_rng(0), 2, T)
