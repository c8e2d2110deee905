"""What varies is drawn from the row's own seed, lives in the row, and leaves all else as it was."""

import itertools
import json

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec

import umwelten  # noqa: F401 (registers)
from umwelten.envs.env import BatchEnv
from umwelten.envs.perturb import KINDS
from umwelten.envs.vary import LEVELS, Curriculum, checked, level

ALL = tuple(KINDS)
NOTHING = {
    name: (1.0, 1.0) if kind.unit == "factor" else (0.0, 0.0) for name, kind in KINDS.items()
}


def actions(steps, n, seed=0):
    rows = [np.random.default_rng([seed, i]).uniform(-1, 1, (steps, 4)) for i in range(n)]
    return np.stack(rows, 1).astype(np.float32)


def run(env, acts, seeds):
    """All that each row shows, step by step."""
    obs, info = env.reset(seed=seeds)
    out = [(obs, None, info)]
    for a in acts:
        obs, reward, _, _, info = env.step(a)
        out.append((obs, reward, info))
    return out


def same(a, b, i=slice(None), j=slice(None), keys=None):
    for (obs, reward, info), (other, paid, told) in zip(a, b, strict=True):
        for k in keys or obs:
            assert np.array_equal(obs[k][i], other[k][j]), k
        assert reward is None or np.array_equal(reward[i], paid[j])
        assert info["instruction"][i] == told["instruction"][j] if isinstance(i, int) else True


def test_a_world_whose_ranges_hold_nothing_is_the_unvaried_one_bit_for_bit():
    acts = actions(12, 3)
    plain = BatchEnv("PickPlace", 3, cameras=("front",), max_episode_steps=6)
    env = BatchEnv("PickPlace", 3, cameras=("front",), max_episode_steps=6, vary=NOTHING)
    same(run(plain, acts, [4, 5, 6]), run(env, acts, [4, 5, 6]))
    assert np.array_equal(env.sim.state, plain.sim.state)
    # and without vary= a row holds no more than it did
    assert BatchEnv("PickPlace", 3, vary=()).physics().shape == plain.physics().shape
    assert plain.variation.values.shape == (3, 0)


def test_what_the_task_draws_does_not_depend_on_what_varies():
    plain, env = BatchEnv("PickPlace", 8), BatchEnv("PickPlace", 8, vary=ALL)
    plain.reset(seed=0), env.reset(seed=0)
    assert np.array_equal(plain.sim.userdata, env.sim.userdata)
    assert np.array_equal(plain.sim.mocap_pos[:, 1:], env.sim.mocap_pos[:, 1:])


def test_a_row_is_the_same_at_any_n_and_place():
    def make(n, nthread=1):
        return BatchEnv(
            "PickPlace", n, vary=ALL, labels=True, physics=True, nthread=nthread,
            cameras=("front",), size=(16, 16), max_episode_steps=5,
        )  # fmt: skip

    acts = actions(12, 4)
    whole = run(make(4, 2), acts, [7, 8, 9, 10])
    alone = run(make(1), acts[:, 2:3], [9])
    same(whole, alone, 2, 0)
    for (_, _, info), (_, _, told) in zip(whole, alone, strict=True):
        assert np.array_equal(info["physics"][2], told["physics"][0])
        assert np.array_equal(info["label/perturbation"][2], told["label/perturbation"][0])
    values = [info["label/perturbation"] for *_, info in whole]
    assert np.array_equal(values[0], values[5]) and not np.array_equal(values[0], values[6])


def test_one_kinds_values_do_not_depend_on_which_others_vary():
    one, many = BatchEnv("PickPlace", 2, vary=("mass",)), BatchEnv("PickPlace", 2, vary=ALL)
    one.reset(seed=3), many.reset(seed=3)
    index = [many.variation.columns.index(c) for c in one.variation.columns]
    assert np.array_equal(one.variation.values, many.variation.values[:, index])
    order = BatchEnv("PickPlace", 2, vary=ALL[::-1])
    order.reset(seed=3)
    assert np.array_equal(order.physics(), many.physics())


@pytest.mark.parametrize("name", KINDS)
def test_values_fill_their_range_and_are_recorded(name):
    env = BatchEnv("PickPlace", 150, vary=(name,), labels=True, nthread=1)
    values = env.reset(seed=0)[1]["label/perturbation"]
    low, high = KINDS[name].default
    assert values.shape == (150, len(env.variation.columns))
    assert low <= values.min() and values.max() <= high
    width = high - low
    if name not in ("start", "layout"):  # they may be less where a joint or a thing is in the way
        assert values.min() < low + 0.1 * width and values.max() > high - 0.1 * width
    if KINDS[name].unit == "factor":
        assert np.log(values).mean() == pytest.approx(np.log(low * high) / 2, abs=0.15)
    again = env.reset(seed=0)[1]["label/perturbation"]
    assert np.array_equal(values, again) and not np.array_equal(values[0], values[1])


def test_a_snapshot_goes_on_exactly_and_another_variation_refuses_it():
    make = dict(vary=ALL, labels=True, max_episode_steps=30, cameras=("front",), size=(8, 8))
    env, other = (BatchEnv("PickPlace", 2, **make) for _ in range(2))
    acts = actions(24, 2)
    run(env, acts[:10], [1, 2])
    snapshot = env.save()
    truth = [env.step(a) for a in acts[10:]]
    other.reset(seed=77)
    other.load(snapshot)
    for a, (obs, reward, *_, info) in zip(acts[10:], truth, strict=True):
        ours = other.step(a)
        assert all(np.array_equal(ours[0][k], obs[k]) for k in obs)
        assert np.array_equal(ours[1], reward)
        assert np.array_equal(ours[4]["label/perturbation"], info["label/perturbation"])
    with pytest.raises(ValueError, match="of another model"):
        BatchEnv("PickPlace", 2, vary=("mass",)).load(snapshot)


def test_a_branch_is_what_a_step_would_have_been():
    env = BatchEnv("PickPlace", 2, vary=ALL)
    mind = BatchEnv("PickPlace", 4, vary=ALL, max_episode_steps=-1)
    env.reset(seed=5)
    for a in actions(12, 2):
        physics, reward, _ = mind.branch(env.physics(), a)
        _, real, *_ = env.step(a)
        assert np.array_equal(reward, real) and np.array_equal(physics, env.physics())


def test_an_episode_is_begun_anew_from_the_models_values():
    env, fresh = (BatchEnv("PickPlace", 1, vary=ALL) for _ in range(2))
    env.reset(seed=0)
    for _ in range(3):
        env.reset()
    env.reset(seed=9), fresh.reset(seed=9)
    assert np.array_equal(env.physics(), fresh.physics())


def test_a_varied_world_is_made_by_gymnasium_and_its_spec_survives_json():
    for given in (("mass", "light"), {"mass": (0.5, 2.0)}, level("camera", 3)):
        env = gym.make("umwelten/PickPlace-v0", vary=given, labels=True)
        spec = EnvSpec.from_json(env.spec.to_json())
        _, info = env.reset(seed=0)
        _, told = gym.make(spec).reset(seed=0)
        assert np.array_equal(info["label/perturbation"], told["label/perturbation"])


@pytest.mark.parametrize(
    "given, told",
    [
        (("mas",), "no variation 'mas'; did you mean 'mass'?"),
        ("mass", r"a tuple or their ranges, got 'mass'; \('mass',\)"),
        ({"mass": (2, 1)}, r"mass varies from low to high within \[0.01, 100\] \(factor\)"),
        ({"mass": (0, 1)}, "within"),
        ({"mass": (1, np.nan)}, "within"),
        ({"colour": (-0.2, 0.2)}, "within"),
        ({"latency": (0, 99)}, "within"),
        ({"latency": (0, 1.5)}, "whole numbers"),
        ({"mass": (1, 2, 3)}, "within"),
        ({"mass": 3}, r"within .* got 3"),
    ],
)
def test_mistakes_are_told(given, told):
    with pytest.raises(ValueError, match=told):
        checked(given)
    with pytest.raises(ValueError, match=told):
        BatchEnv("PickPlace", 1, vary=given)


def test_a_model_that_has_nothing_of_the_kind_refuses():
    for name in ("size", "layout", "colour", "table"):
        with pytest.raises(ValueError, match=f"{name} cannot vary"):
            BatchEnv("CartpoleSwingup", 1, vary=(name,))
    env = BatchEnv("CartpoleSwingup", 1, vary=("mass", "gain", "damping", "start", "light"))
    assert {"mass/cart", "gain/slide", "damping/hinge_1"} <= set(env.variation.columns)
    assert "start/hinge_1" not in env.variation.columns  # the pole is where the task put it


def test_ranges_are_narrowed_from_the_next_episode_on():
    env = BatchEnv("PickPlace", 2, vary={"mass": (1, 1), "latency": (0, 0)})
    env.reset(seed=0)
    env.variation.narrow({"mass": (3, 3), "latency": (2, 2)})
    assert (env.variation.values == [1, 1, 0]).all()
    env.reset()
    assert (env.variation.values == [3, 3, 2]).all()
    with pytest.raises(ValueError, match="mass, latency varies here, got mass; for other kinds"):
        env.variation.narrow({"mass": (1, 1)})
    with pytest.raises(ValueError, match="nothing varies here"):
        BatchEnv("Reach", 1).variation.narrow({"mass": (1, 1)})


# ---- levels


@pytest.mark.parametrize("name", LEVELS)
def test_levels_widen_from_nothing_and_can_be_built(name):
    steps = [level(name, k) for k in range(6)]
    assert steps[0] == {kind: NOTHING[kind] for kind in steps[0]}
    for less, more in itertools.pairwise(steps):
        assert less.keys() == more.keys() and less != more
        for kind in less:
            low, high = KINDS[kind].bounds
            assert low <= more[kind][0] <= more[kind][1] <= high
            assert name == "language" or more[kind][0] <= less[kind][0]
            assert less[kind][1] <= more[kind][1]
    BatchEnv("PickPlace", 1, vary=steps[5]).reset(seed=0)


def test_unknown_levels_are_told():
    with pytest.raises(ValueError, match="no levels of 'camra'; did you mean 'camera'"):
        level("camra", 1)
    with pytest.raises(ValueError, match="0 to 5, got 6"):
        level("camera", 6)


def test_a_curriculum_rises_with_success_and_falls_with_failure():
    course = Curriculum("camera", window=10, up=0.8, down=0.3)
    assert course.ranges == level("camera", 0)
    assert not course.count([True] * 9) and course.count([True])
    assert course.level == 1 and course.ranges == level("camera", 1)
    assert not course.count([True, False] * 10)  # in between it stays
    assert course.level == 1
    assert course.count([False] * 10) and course.level == 0
    course.count([False] * 100)
    assert course.level == 0
    course.count([True] * 100)
    assert course.level == 5 == course.log[-1][1]
    episodes = [at for at, _ in course.log]
    assert episodes == sorted(set(episodes))
    assert all(abs(b - a) == 1 for (_, a), (_, b) in itertools.pairwise(course.log))


def test_a_curriculum_goes_on_from_its_state_as_if_it_had_not_stopped():
    rng = np.random.default_rng(0)
    outcomes = rng.random(400) < np.linspace(0.1, 1.0, 400)
    whole, first = Curriculum("start", window=20), Curriculum("start", window=20)
    whole.count(outcomes)
    first.count(outcomes[:150])
    second = Curriculum("start", window=20)
    second.restore(json.loads(json.dumps(first.state())))
    second.count(outcomes[150:])
    assert second.state() == whole.state() and second.log == whole.log and whole.level > 0
    with pytest.raises(ValueError, match="of 'start', this curriculum of 'light'"):
        Curriculum("light").restore(first.state())
    with pytest.raises(ValueError, match="down < up"):
        Curriculum("light", up=0.2, down=0.3)


def test_a_curriculum_drives_a_world():
    course = Curriculum("start", window=4)
    env = BatchEnv("Reach", 4, vary=course.ranges, max_episode_steps=2)
    env.reset(seed=0)
    assert not env.variation.values.any()
    if course.count([True] * 4):
        env.variation.narrow(course.ranges)
    env.reset()
    assert 0 < np.abs(env.variation.values).max() <= 0.03
