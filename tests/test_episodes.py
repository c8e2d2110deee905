"""Promises of the recorder and of the windows, splits and sums over what it recorded."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from umwelten import shards
from umwelten.episodes import Episodes, Recorder

PLAN = [[5, 7, 1], [3, 12, 40], [1, 1, 33]]


def stream(plan, seed=0, gap=1, invalid=0.0, thin=False):
    """Makes steps of len(plan) rows, `gap` ignored steps between episodes, and what is expected.

    Returns the steps and, in order of their ends, the episodes as dicts of arrays. `label/at` holds
    (row, episode of the row, t), so every step can be told from every other.
    """
    rng = np.random.default_rng(seed)
    n = len(plan)
    script = [
        [(e, t, length) for e, length in enumerate(row) for t in range(-gap, length)]
        for row in plan
    ]
    steps, hand, done = [], [[] for _ in plan], []
    for k in range(max(map(len, script))):
        now = [row[k] if k < len(row) else (0, -1, 0) for row in script]
        step = {
            "first": np.array([t == 0 for _, t, _ in now]),
            "last": np.array([t == length - 1 and t >= 0 for _, t, length in now]),
            "terminal": rng.random(n) < 0.5,
            "valid": rng.random(n) >= invalid,
            "reward": rng.random(n),
            "action": rng.uniform(-1, 1, (n, 2)).astype(np.float32),
            "label/at": np.array([(i, e, t) for i, (e, t, _) in enumerate(now)], np.int32),
            "label/success": rng.random(n) < 0.02,
            "episode/seed": np.array([100 * i + e for i, (e, _, _) in enumerate(now)]),
        }
        if not thin:
            step |= {
                "proprio": rng.random((n, 3), np.float32),
                "physics": rng.random((n, 4)),
                "time": rng.random(n),
                "instruction": rng.integers(0, 255, (n, 128), np.uint8),
                "rgb/front": rng.integers(0, 255, (n, 4, 5, 3), np.uint8),
                "segmentation/front": rng.integers(-1, 9, (n, 4, 5), np.int32),
                "label/contacts": rng.random((n, 2, 2)) < 0.5,
                "nothing": np.zeros((n, 0), np.float32),
            }
        steps.append(step)
        for i, (_, t, length) in enumerate(now):
            if t >= 0:
                hand[i].append({key: value[i] for key, value in step.items()})
            if t == length - 1 and t >= 0:
                done.append({key: np.stack([s[key] for s in hand[i]]) for key in step})
                done[-1]["reward"] = done[-1]["reward"].astype(np.float32)
                hand[i] = []
    return steps, done


def record(folder, steps, **given):
    with Recorder(folder, **given) as recorder:
        return sum(recorder.add(step) for step in steps), recorder.names()


def files(folder):
    return {file.name: file.read_bytes() for file in Path(folder).glob("shard-*")}


def test_every_dtype_comes_back_to_the_bit(tmp_path):
    steps, expected = stream(PLAN)
    count, names = record(tmp_path, steps, info={"task": "Reach", "nu": 2})
    episodes = Episodes(tmp_path)
    assert count == len(episodes) == len(expected) == 9
    assert episodes.info == {"task": "Reach", "nu": 2}
    assert episodes.lengths.tolist() == [len(e["first"]) for e in expected]
    assert set(episodes.keys) == steps[0].keys() - {"episode/seed"}
    for i, truth in enumerate(expected):
        got = episodes.episode(i)
        assert episodes.column("episode/seed")[i] == truth["episode/seed"][0]
        for key in episodes.keys:
            assert got[key].dtype == truth[key].dtype and np.array_equal(got[key], truth[key]), key
    episodes.verify()
    plain = [safetensors.numpy.load_file(tmp_path / name) for name in names]
    for key in episodes.keys:
        whole = np.concatenate([file[key] for file in plain])
        assert np.array_equal(whole, np.concatenate([e[key] for e in expected])), key


def test_only_whole_episodes_are_kept(tmp_path):
    steps, expected = stream([[6], [9]], gap=2)
    with Recorder(tmp_path) as recorder:
        finished = [recorder.add(step) for step in steps[:-1]]
        assert recorder.in_hand()["hand/length"].tolist() == [8]
    assert sum(finished) == 1 and finished[7] == 1
    assert np.array_equal(Episodes(tmp_path).episode(0)["label/at"], expected[0]["label/at"])
    with pytest.raises(ValueError, match="closed"):
        recorder.add(steps[0])


def test_rows_that_end_together_make_one_shard(tmp_path):
    steps, _ = stream([[4]] * 256, thin=True)
    assert record(tmp_path, steps) == (256, ["shard-000000.safetensors"])
    assert [file.name for file in tmp_path.iterdir()] == ["shard-000000.safetensors"]


def test_recorder_copies_what_it_is_given(tmp_path):
    steps, expected = stream([[5]])
    buffer = {key: value.copy() for key, value in steps[0].items()}
    with Recorder(tmp_path) as recorder:
        for step in steps:
            for key, value in step.items():
                buffer[key][...] = value
            recorder.add(buffer)
    assert np.array_equal(Episodes(tmp_path).episode(0)["physics"], expected[0]["physics"])


def test_a_folder_is_appended_to_and_never_overwritten(tmp_path):
    steps, expected = stream(PLAN)
    _, names = record(tmp_path, steps)
    before = files(tmp_path)
    (tmp_path / ".shard-000009.tmp").touch()  # left by a killed recorder, or held by a live one
    with Recorder(tmp_path) as one, Recorder(tmp_path) as two:
        for a, b in zip(steps, stream(PLAN, seed=1)[0], strict=True):
            one.add(a)
            two.add(b)
        assert one.names()[: len(names)] == names and not set(one.names()[9:]) & set(
            two.names()[9:]
        )
    after = files(tmp_path)
    assert {name: after[name] for name in before} == before
    assert len(Episodes(tmp_path)) == 3 * len(expected)


def test_another_schema_is_refused_before_anything_is_recorded(tmp_path):
    steps, _ = stream(PLAN)
    record(tmp_path, steps)
    before = files(tmp_path)
    for change in ({"proprio": np.zeros((3, 4), np.float32)}, {"extra": np.zeros(3)}):
        with pytest.raises(ValueError, match="holds other steps"):
            Recorder(tmp_path).add(steps[0] | change)
    assert files(tmp_path) == before


def without(step, *keys):
    return {key: value for key, value in step.items() if key not in keys}


WRONG = {
    "missing": lambda s: without(s, "valid"),
    "lost": lambda s: without(s, "proprio"),
    "added": lambda s: s | {"more": s["reward"]},
    "shape": lambda s: s | {"proprio": s["proprio"][:, :2]},
    "rows": lambda s: {key: value[:2] for key, value in s.items()},
    "dtype": lambda s: s | {"rgb/front": s["rgb/front"].astype(np.float32)},
    "narrower": lambda s: s | {"physics": s["physics"].astype(np.float32)},
    "flag": lambda s: s | {"first": s["reward"]},
    "twice": lambda s: s | {"first": np.ones(3, bool)},
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_step_is_refused_and_leaves_no_trace(tmp_path, name):
    steps, _ = stream(PLAN)
    record(tmp_path / "right", steps)
    with Recorder(tmp_path / "wrong") as recorder:
        for k, step in enumerate(steps):
            if k == 4:
                with pytest.raises(ValueError):
                    recorder.add(WRONG[name](step))
            recorder.add(step)
    assert files(tmp_path / "wrong") == files(tmp_path / "right")


@pytest.mark.parametrize(
    "key, value", [("name", ["x"] * 3), ("any", [object()] * 3), ("c", 3 * [1j])]
)
def test_a_first_step_must_be_numbers(tmp_path, key, value):
    step = stream(PLAN)[0][0]
    for bad in ({key: np.array(value)}, {"episode/id": step["reward"]}, {"scalar": np.float32(1)}):
        with pytest.raises(ValueError):
            Recorder(tmp_path).add(step | bad)
    recorder = Recorder(tmp_path)
    for bad in (
        without(step, "action"),
        step | {"reward": step["reward"][:, None]},
        step | {"last": value},
    ):
        with pytest.raises(ValueError):
            recorder.add(bad)
    recorder.add(step)  # what was refused has not defined the schema
    with pytest.raises(ValueError, match="info"):
        Recorder(tmp_path, info={"text": "x" * (1 << 20)})


def test_open_episodes_go_on_to_the_bit_in_another_recorder(tmp_path):
    steps, _ = stream([[5, 40], [3, 12], [70, 2]])
    record(tmp_path / "whole", steps)
    whole = files(tmp_path / "whole")
    for cut in (0, 1, 2, 9, 33, 50, len(steps) - 1, len(steps)):
        folder = tmp_path / str(cut)
        first = Recorder(folder)
        for step in steps[:cut]:
            first.add(step)
        safetensors.numpy.save_file(first.in_hand(), tmp_path / "hand")
        with Recorder(folder) as second:
            second.restore(safetensors.numpy.load_file(tmp_path / "hand"))
            for step in steps[cut:]:
                second.add(step)
        assert files(folder) == whole, cut


def test_restore_refuses_what_in_hand_cannot_return(tmp_path):
    steps, _ = stream([[5], [9]])
    recorder = Recorder(tmp_path)
    for step in steps[:4]:
        recorder.add(step)
    good = recorder.in_hand()
    for bad in (
        without(good, "hand/row"),
        good | {"hand/n": np.array([1])},
        good | {"hand/length": np.array([4, 1])},
        good | {"hand/row": np.array([0, 0])},
        good | {"reward": good["reward"][:-1]},
        good | {"first": ~good["first"]},
        good | {"last": ~good["last"]},
    ):
        with pytest.raises(ValueError):
            Recorder(tmp_path).restore(bad)
    with pytest.raises(RuntimeError, match="nothing in hand"):
        recorder.restore(good)


def admissible(episodes, t):
    """Lists (row, episode, t) of the first steps of all windows, by brute force."""
    for episode in episodes:
        for s in range(len(episode["first"]) - t + 1):
            if episode["valid"][s : s + t].all():
                yield tuple(episode["label/at"][s].tolist())


@settings(max_examples=25, deadline=None)
@given(
    plan=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), min_size=1, max_size=4),
    t=st.integers(1, 6),
    invalid=st.sampled_from([0.0, 0.1, 0.5]),
    seed=st.integers(0, 99),
)
def test_windows_stay_in_one_episode_and_hold_valid_steps_only(
    tmp_path_factory, plan, t, invalid, seed
):
    folder = tmp_path_factory.mktemp("episodes")
    steps, expected = stream(plan, seed, invalid=invalid, thin=True)
    record(folder, steps)
    episodes, right = Episodes(folder), set(admissible(expected, t))
    rng = np.random.default_rng(seed)
    if not right:
        with pytest.raises(ValueError, match="no window"):
            episodes.sample(rng, 4, t)
        return
    batch = episodes.sample(rng, 40 * len(right) + 40, t)
    at = batch["label/at"]
    assert batch["valid"].all() and (np.diff(at, axis=1) == [0, 0, 1]).all()
    assert {tuple(window[0].tolist()) for window in at} == right
    table = episodes.windows(t, 1)
    got = [tuple(w[0].tolist()) for w in episodes.take(table, t)["label/at"]]
    assert got == list(admissible(expected, t))


def misfit(counts):
    """Returns how many standard deviations chi-square lies above its mean, for equal chances."""
    k, expected = len(counts), sum(counts) / len(counts)
    return (((np.array(counts) - expected) ** 2 / expected).sum() - (k - 1)) / np.sqrt(2 * (k - 1))


def test_sampling_is_uniform_over_windows_not_over_episodes(tmp_path):
    steps, expected = stream([[4, 20, 9], [50, 3, 31]], thin=True, invalid=0.05)
    record(tmp_path, steps)
    episodes, starts = Episodes(tmp_path), list(admissible(expected, 4))
    number = {start: i for i, start in enumerate(starts)}
    rng = np.random.default_rng(0)
    batch = episodes.sample(rng, 300 * len(starts), 4)["label/at"][:, 0]
    counts = np.bincount([number[tuple(at)] for at in batch.tolist()], minlength=len(starts))
    assert abs(misfit(counts)) < 4
    # The same measure must catch a sampler that draws the episode first.
    each = [list(admissible([episode], 4)) for episode in expected]
    each = [windows for windows in each if windows]
    chosen = rng.integers(0, len(each), 300 * len(starts))
    wrong = [each[i][rng.integers(len(each[i]))] for i in chosen]
    assert misfit(np.bincount([number[at] for at in wrong], minlength=len(starts))) > 50


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


def draws(episodes, seed=5):
    rng = np.random.default_rng(seed)
    return [episodes.sample(rng, 16, t) for t in (1, 3, 5)]


def test_windows_may_go_from_one_episode_into_the_next(tmp_path):
    record(tmp_path, stream([[7, 4, 9]])[0])
    inside, across = (Episodes(tmp_path, across=a) for a in (False, True))
    assert (inside.count(5), across.count(5), across.count(20)) == (3 + 5, 20 - 5 + 1, 1)
    whole = across.read(np.zeros(1, int), 20)
    assert np.flatnonzero(whole["first"]).tolist() == [0, 7, 11]
    places = across.draw(np.random.default_rng(0), 400, 5)
    assert set(places.tolist()) == set(range(16))
    for key, value in across.read(places, 5).items():
        assert np.array_equal(value, whole[key][0][places[:, None] + np.arange(5)]), key


def test_samples_depend_on_generator_and_content_alone(tmp_path, monkeypatch):
    steps, _ = stream(PLAN)
    grown = None
    with Recorder(tmp_path) as recorder:
        for step in steps:
            recorder.add(step)
            grown = grown or Episodes(tmp_path)
            grown.refresh()
    fresh = Episodes(tmp_path)
    assert all(same(a, b) for a, b in zip(draws(grown), draws(fresh), strict=True))
    for memory, small in ((0, 0), (2000, 1 << 20), (1 << 30, 60)):  # mapped, mixed, small keys only
        monkeypatch.setattr(shards, "_SMALL_SHARD", small)
        monkeypatch.setattr(shards, "_SMALL_STEP", small)
        monkeypatch.setattr(shards, "_MAPS", 2)
        mapped = Episodes(tmp_path, memory=memory)
        assert all(same(a, b) for a, b in zip(draws(mapped), draws(fresh), strict=True))
        assert 0 < len(mapped._store._maps) <= 2
        assert mapped.stats()["keys"]["proprio"]["mean"] == pytest.approx(
            fresh.stats()["keys"]["proprio"]["mean"]
        )
    assert not all(same(a, b) for a, b in zip(draws(fresh, 6), draws(fresh), strict=True))
    batch = draws(fresh)[1]
    batch["proprio"][...] = 0  # a batch is the caller's own
    assert same(draws(fresh)[1], draws(grown)[1]) and batch["proprio"].flags.c_contiguous


def test_refresh_sees_new_shards_and_costs_nothing_without(tmp_path, monkeypatch):
    steps, expected = stream(PLAN)
    episodes = Episodes(Recorder(tmp_path).path)
    assert (len(episodes), episodes.keys, episodes.info, episodes.steps) == (0, (), {}, 0)
    assert episodes.stats()["return"] is None and len(episodes.windows(2, 1)) == 0
    stamp = tmp_path.stat().st_mtime_ns
    record(tmp_path, steps)
    os.utime(tmp_path, ns=(stamp, stamp))  # as if all had happened within one tick of the clock
    assert episodes.refresh() == len(expected) and episodes.refresh() == 0
    os.utime(tmp_path, ns=(stamp - 10**10, stamp - 10**10))
    episodes.refresh()
    monkeypatch.setattr(shards, "shard_names", None)  # nothing is listed any more
    assert episodes.refresh() == 0
    monkeypatch.undo()
    (tmp_path / "shard-000000.safetensors").unlink()
    with pytest.raises(ValueError, match="lost"):
        episodes.refresh()
    with pytest.raises(FileNotFoundError):
        Episodes(tmp_path / "nowhere")


def test_keys_choose_what_is_read_and_several_folders_make_one(tmp_path):
    steps, expected = stream(PLAN)
    record(tmp_path / "a", steps, info={"task": "Reach", "n": 3})
    record(
        tmp_path / "b", [without(step, "physics") for step in steps], info={"task": "Push", "n": 3}
    )
    both = [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(ValueError, match="physics"):
        Episodes(both)
    with pytest.raises(ValueError, match="no keys"):
        Episodes(both, keys=("tactile",))
    episodes = Episodes(both, keys=("proprio", "action"))
    assert len(episodes) == 2 * len(expected) and episodes.info == {"n": 3}
    batch = episodes.sample(np.random.default_rng(0), 3, 2)
    assert list(batch) == ["proprio", "action"] and batch["action"].shape == (3, 2, 2)


def test_windows_count_as_the_formula_says(tmp_path):
    plan = [[5821, 19, 20, 24, 25]]
    steps, _ = stream(plan, thin=True)
    record(tmp_path, steps)
    table = Episodes(tmp_path).windows(20, 5)
    assert np.bincount(table[:, 0], minlength=5).tolist() == [1161, 0, 1, 1, 2]
    assert table[:1161, 1].tolist() == list(range(0, 5801, 5)) and table.dtype == np.int64
    with pytest.raises(ValueError, match="leaves its episode"):
        Episodes(tmp_path).take(table[-1:] + np.array([0, 1]), 20)
    for size, stride in ((0, 1), (1, 0)):
        with pytest.raises(ValueError):
            Episodes(tmp_path).windows(size, stride)


def told(view):
    return {tuple(view.episode(i)["label/at"][0].tolist()) for i in range(len(view))}


def test_a_split_shares_nothing_and_later_episodes_move_none(tmp_path):
    record(tmp_path, stream([[3] * 40, [4] * 40], thin=True)[0])
    episodes = Episodes(tmp_path)
    parts = episodes.split(7, (0.7, 0.2, 0.1))
    before = [told(part) for part in parts]
    assert sum(map(len, parts)) == 80 == len(set().union(*before))
    assert 40 < len(parts[0]) < 70
    assert told(episodes.split(8)[0]) != told(episodes.split(7)[0])
    inner = [len(part) for part in parts[0].split(7, (0.7, 0.3))]
    assert sum(inner) == len(parts[0]) and min(inner) > 5  # a split of a split is a new draw
    record(
        tmp_path,
        [s | {"label/at": s["label/at"] + 1000} for s in stream([[2] * 60], 1, thin=True)[0]],
    )
    for part, old, again in zip(
        parts, before, Episodes(tmp_path).split(7, (0.7, 0.2, 0.1)), strict=True
    ):
        part.refresh()
        assert old < told(part) == told(again)
        rows = {
            tuple(at[0])
            for at in part.sample(np.random.default_rng(0), 500, 1)["label/at"].tolist()
        }
        assert {row[:2] for row in rows} <= {row[:2] for row in told(part)}
        assert part.stats()["steps"] == part.lengths.sum()
    for wrong in ((0.9, 0.2), (-0.1, 0.5)):
        with pytest.raises(ValueError, match="fractions"):
            episodes.split(0, wrong)


def test_equal_episodes_never_part(tmp_path):
    steps, _ = stream([[3] * 30], thin=True)
    for _ in range(2):  # the same thirty episodes twice, by other names
        record(tmp_path, steps)
    episodes = Episodes(tmp_path)

    def shared(a, b):
        return set(a.tolist()) & set(b.tolist())

    train, test = (part.column("episode/id") for part in episodes.split(0, (0.5, 0.5)))
    assert len(train) + len(test) == 60 and not shared(train, test)
    ids = episodes.column("episode/id")
    assert shared(ids[::2], ids[1::2]) or shared(ids[:30], ids[30:])  # by position they would leak


def test_stats_are_those_of_all_steps_together(tmp_path, monkeypatch):
    steps, expected = stream([[5, 60], [30, 9]], invalid=0.1)
    for step in steps:
        step["proprio"] += 1e4  # a large mean makes naive sums of squares fail
    record(tmp_path, steps)
    monkeypatch.setattr(shards, "_CHUNK", 30)
    episodes = Episodes(tmp_path)
    stats = episodes.stats()
    valid = np.concatenate([e["valid"] for e in expected])
    used = {
        "proprio": valid,
        "physics": valid,
        "reward": valid & ~np.concatenate([e["first"] for e in expected]),
        "action": valid & ~np.concatenate([e["last"] for e in expected]),
    }
    for key, rows in used.items():
        values = np.concatenate([episodes.episode(i)[key] for i in range(4)])[rows].astype(
            np.float64
        )
        got = stats["keys"][key]
        assert got["count"] == rows.sum() and got["mean"].shape == values.shape[1:]
        for name in ("mean", "std", "min", "max"):
            np.testing.assert_allclose(got[name], getattr(values, name)(0), rtol=1e-10, err_msg=key)
    assert stats["steps"] == 104 and stats["episodes"] == 4
    assert stats["return"] == pytest.approx(np.mean([e["reward"].sum() for e in expected]))
    assert stats["success"] == np.mean([e["label/success"].any() for e in expected])
    assert "rgb/front" not in stats["keys"] and "instruction" not in stats["keys"]


def shift_error(episodes, shift):
    """Returns how far reward[t + shift] is from what observation and action at t have earned."""
    batch = episodes.sample(np.random.default_rng(0), 64, 4)
    earned = batch["proprio"][..., 0] * batch["action"][..., 0]
    return np.abs(batch["reward"][:, 1 + shift : 3 + shift] - earned[:, 1:3]).max()


def test_reward_stands_with_the_step_it_was_paid_for_arriving_at(tmp_path):
    steps, _ = stream([[20, 30], [25, 9]], gap=0)
    for now, after in itertools.pairwise(steps):
        after["reward"] = np.where(after["first"], 0, now["proprio"][:, 0] * now["action"][:, 0])
    record(tmp_path / "right", steps)
    assert shift_error(Episodes(tmp_path / "right"), 1) < 1e-6
    for now, after in itertools.pairwise(steps):
        now["reward"] = after["reward"]  # planted: reward beside the action that earned it
    record(tmp_path / "wrong", steps)
    assert shift_error(Episodes(tmp_path / "wrong"), 1) > 0.1
    assert shift_error(Episodes(tmp_path / "wrong"), 0) < 1e-6


def test_episodes_do_without_torch():
    code = "import sys, umwelten.episodes; sys.exit(bool({'torch', 'mujoco'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
