"""Senses: one contract for all of them, and what each must read by the laws of physics."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3.common.env_checker
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import umwelten  # noqa: F401 (registers)
from umwelten import registry
from umwelten.envs.audio import Audio
from umwelten.envs.env import BatchEnv
from umwelten.envs.ranges import Lidar, Points
from umwelten.envs.sense import EVERY, normal, uniform
from umwelten.envs.senses import MEMBERS
from umwelten.envs.signals import Contacts, Imu, Joints, Pose, Touch, Wrench
from umwelten.envs.sim import Sim

NAMES = [name if name != "points" else "points/front" for name in MEMBERS]
# Every sense with every fault: late, noisy and lossy.
FAULTY = (
    Joints(noise=0.01, dropout=0.2, delay=0.1),
    Pose(rate=2, noise=0.01, dropout=0.2, delay=0.1),
    Wrench(rate=5, delay=0.04, noise=(1, 1, 1, 0.1, 0.1, 0.1)),
    Imu(delay=0.05, noise=0.1, dropout=0.3),
    Imu(rate=4, at="tcp"),
    Touch(rate=1, noise=0.1),
    Contacts(dropout=0.2),
    Lidar(delay=0.2, noise=0.01, beams=16),
    Points(at="front", size=(6, 8), noise=0.01, delay=0.1),
    Audio(
        noise=1e-4, dropout=0.2, delay=0.01, materials=(("cube", "steel"), ("cylinder", "glass"))
    ),
)


def world(senses, n=1, task="PickPlace", **options):
    return BatchEnv(task, n, nthread=1, senses=senses, **options)


def actions(env, steps, seed=0):
    """The expert's way with a disturbance that depends on the step and the row alone."""
    nu, n = env.single_action_space.shape[0], env.num_envs
    rows = [np.random.default_rng([seed, i]).uniform(-1, 1, (steps, nu)) for i in range(n)]
    return np.stack(rows, 1).astype(np.float32)


def same(a, b, path=""):
    """Deep, bitwise equality."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            same(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, np.ndarray) and a.dtype == object:
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{path}[{i}]")
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes(), path
    else:
        assert a == b, path


# The contract


@pytest.mark.filterwarnings("ignore:.*(infinity|Box observation|precision lowered).*")
def test_gymnasium_and_sb3_accept_a_world_with_all_senses():
    env = gym.make("umwelten/PickPlace-v0", senses=tuple(NAMES))
    check_env(env.unwrapped)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stable_baselines3.common.env_checker.check_env(env)


def test_observations_stay_inside_their_spaces_and_are_fresh():
    env = world(FAULTY, 2)
    obs, _ = env.reset(seed=0)
    for t, action in enumerate(actions(env, 200)):
        last, (obs, *_) = obs, env.step(env.expert() if t % 3 else action)
        assert obs in env.observation_space
        assert not any(np.shares_memory(obs[k], last[k]) for k in obs)
        assert all(np.isfinite(v).all() for v in obs.values())


def test_the_readme_shapes():
    env = world(tuple(NAMES))
    shapes = {k: env.single_observation_space[k].shape for k in NAMES}
    assert shapes == {
        "joints": (14,), "pose": (7,), "wrench": (6,), "imu": (20, 6), "touch": (2, 4, 4),
        "contacts": (4, 2), "lidar": (64,), "points/front": (1024, 3), "audio": (1600, 2),
    }  # fmt: skip


def test_senses_change_neither_physics_nor_task():
    plain, rich = (world(senses, 2, physics=True, labels=True) for senses in ((), FAULTY))
    a, b = plain.reset(seed=3), rich.reset(seed=3)
    for action in [None, *actions(plain, 60)]:
        if action is not None:
            same(*(env.expert() for env in (plain, rich)))
            action = plain.expert() + 0.3 * action
            a, b = plain.step(action), rich.step(action)
            same(a[1], b[1])
        same(a[0], {k: b[0][k] for k in a[0]})
        same(a[-1], b[-1])


@pytest.mark.parametrize("name", registry.members("envs"))
def test_sensors_that_senses_add_disturb_no_task(name):
    plain = world((), 2, task=name, labels=True)
    senses = ("joints",) if "PointMass" not in name else ("audio",)  # its motors pull tendons
    rich = world(senses, 2, task=name, labels=True)
    same(plain.reset(seed=0)[1], rich.reset(seed=0)[1])
    for action in actions(plain, 3):
        a, b = plain.step(action), rich.step(action)
        same(a[0], {k: b[0][k] for k in a[0]})
        same(a[1], b[1])
        same(a[-1], b[-1])


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_equals_sync_vector_env_bit_for_bit(mode):
    n, limit, options = 2, 6, {"senses": FAULTY, "physics": True}
    ours = BatchEnv("PickPlace", n, max_episode_steps=limit, autoreset_mode=mode, **options)
    make = lambda: gym.make(  # noqa: E731
        "umwelten/PickPlace-v0", max_episode_steps=limit, disable_env_checker=True, **options
    )
    theirs = SyncVectorEnv([make] * n, autoreset_mode=mode)
    same(*(env.reset(seed=11)[0] for env in (ours, theirs)))
    for action in actions(ours, 15):
        a, b = ours.step(action), theirs.step(action)
        same(a[0], b[0])
        if mode is AutoresetMode.SAME_STEP and "final_obs" in a[4]:
            same(a[4]["final_obs"], b[4]["final_obs"])
        if mode is AutoresetMode.DISABLED and (done := a[2] | a[3]).any():
            same(*(e.reset(options={"reset_mask": done.copy()})[0] for e in (ours, theirs)))


def test_a_row_is_the_same_at_any_n_thread_count_and_place():
    def run(n, nthread, seeds, row):
        env = BatchEnv("PickPlace", n, nthread=nthread, senses=FAULTY, max_episode_steps=20)
        out = [env.reset(seed=seeds)[0]]
        rng = np.random.default_rng(0)
        for _ in range(45):
            action = np.float32(0.3 * rng.uniform(-1, 1, 4))
            out.append(env.step(env.expert() + action)[0])
        return [{k: v[row] for k, v in obs.items()} for obs in out]

    alone = run(1, 1, [7], 0)
    for a, b, c in zip(
        alone, run(4, 2, [7, 1, 2, 3], 0), run(5, 3, [4, 5, 6, 7, 8], 3), strict=True
    ):
        same(a, b)
        same(a, c)
    other = run(1, 1, [8], 0)
    for sense in FAULTY:
        assert any(
            not np.array_equal(a[sense.key], b[sense.key])
            for a, b in zip(alone, other, strict=True)
        )


@pytest.mark.parametrize("repeat", [1, 2])
def test_a_snapshot_goes_on_exactly(repeat):
    env, other = (world(FAULTY, 3, max_episode_steps=30, action_repeat=repeat) for _ in range(2))
    env.reset(seed=1)
    other.reset(seed=99)
    for _ in range(12):  # until things have begun to sound
        env.step(env.expert())
        if (snapshot := env.save()).arrays["sense/audio/motion"].any():
            break
    truth = [env.step(env.expert())[0] for _ in range(25)]
    same(other.load(snapshot), {k[5:]: v for k, v in snapshot.arrays.items() if k[:5] == "last/"})
    assert repeat > 1 or snapshot.arrays["sense/audio/motion"].any()
    for obs in truth:
        same(obs, other.step(other.expert())[0])
    one = world(FAULTY, 1, max_episode_steps=30, action_repeat=repeat)
    one.load(snapshot.rows([2]))
    for obs in truth[:5]:
        same({k: v[2:] for k, v in obs.items()}, one.step(one.expert())[0])


def test_a_snapshot_of_other_senses_is_refused():
    a, b = world((Imu(noise=0.1),)), world((Imu(noise=0.2),))
    a.reset(seed=0)
    b.reset(seed=0)
    with pytest.raises(ValueError, match="of another model"):
        b.load(a.save())


def test_a_diverged_row_does_not_trouble_the_others_nor_its_next_episode():
    env, calm = (world(FAULTY, 3) for _ in range(2))
    env.reset(seed=0)
    calm.reset(seed=0)
    for t in range(8):
        if t == 2:
            env.sim.qpos[1, 0] = np.nan
        action = calm.expert()
        obs, _, terminated, *_ = env.step(action)
        truth = calm.step(action)[0]
        assert terminated.tolist() == [False, t == 2, False]
        assert all(np.isfinite(v).all() for v in obs.values())
        same({k: v[::2] for k, v in obs.items()}, {k: v[::2] for k, v in truth.items()})


def test_wrong_senses_say_what_is_allowed():
    for senses, told in (
        (("smell",), "no sense 'smell'; there are joints, pose"),
        (("joints/tcp",), "takes no place"),
        (("points",), "points/<camera>"),
        (("points/rear",), "front"),
        (("imu/rear",), "needs a site 'rear'; the scene has tcp"),
        (("imu", Imu()), "not all different"),
        ("imu", "in a tuple"),
        ((Imu(rate=3),), r"rate 3 does not divide .* 20 physics steps; .*\[1, 2, 4, 5, 10, 20\]"),
        ((Imu(delay=0.0033),), "delay 0.0033 s is not a whole number .* 0.005 s"),
        ((Lidar(rate=2),), "once a control step"),
        ((Audio(hertz=8150),), "whole number of samples"),
        ((Audio(at="rear"),), "hears at a camera or site"),
        ((Audio(materials=(("cube", "jelly"),)),), "no material 'jelly'"),
        ((Contacts(pairs=(("left", "rear"),)),), "needs a geom 'rear'"),
    ):
        with pytest.raises(ValueError, match=told):
            world(senses)
    for name in ("pose", "wrench", "imu", "touch", "contacts", "lidar"):
        with pytest.raises(ValueError, match=f"{name} needs"):
            world((name,), task="CartpoleBalance")
    for bad in ({"dropout": 1.5}, {"delay": -1}, {"noise": -1}, {"rate": -2}):
        with pytest.raises(ValueError, match="imu"):
            Imu(**bad)


# Faults


def test_a_delay_shifts_samples_by_whole_periods_and_begins_with_the_first():
    late = (Joints(delay=0.3), Wrench(rate=4, delay=0.05), Imu(delay=0.125), Lidar(delay=0.1))
    late += (Audio(delay=0.1),)
    prompt = (Joints(), Wrench(rate=4), Imu(), Lidar(), Audio())
    steps = {"joints": 3, "wrench": 2, "imu": 25, "lidar": 1, "audio": 1600}
    a, b = world(late), world(prompt)
    first = b.reset(seed=0)[0]
    same(a.reset(seed=0)[0], first)
    seen = {k: [[], []] for k in steps}
    for _ in range(14):
        for i, obs in enumerate(env.step(env.expert())[0] for env in (a, b)):
            for k in steps:
                axis = k in ("wrench", "imu", "audio")
                seen[k][i].append(obs[k][0] if axis else obs[k])
    for k, shift in steps.items():
        got, true = (np.concatenate(x) for x in seen[k])
        assert np.array_equal(got[shift:], true[:-shift]), k
        start = first[k][0][-1] if k in ("wrench", "imu", "audio") else first[k][0]
        assert (got[:shift] == start).all(), k
        assert len(np.unique(true, axis=0)) > 1


def test_noise_has_the_deviation_it_states_and_no_other():
    spread = (1.0, 1.0, 1.0, 0.1, 0.1, 0.1)
    noisy = world((Wrench(rate=20, noise=spread), Imu(noise=0.5)), 8)
    clean = world((Wrench(rate=20), Imu()), 8)
    noisy.reset(seed=0)
    clean.reset(seed=0)
    off = {"wrench": [], "imu": []}
    for action in actions(clean, 30):
        a, b = noisy.step(action)[0], clean.step(action)[0]
        for k in off:
            off[k].append((a[k].astype(float) - b[k]).reshape(-1, 6))
    wrench, imu = (np.concatenate(off[k]) for k in ("wrench", "imu"))
    count = len(wrench)
    np.testing.assert_allclose(wrench.std(0), spread, rtol=4 / np.sqrt(2 * count))
    np.testing.assert_allclose(imu.std(0), 0.5, rtol=4 / np.sqrt(2 * count))
    assert np.abs(wrench.mean(0) / spread).max() < 4 / np.sqrt(count)
    together = np.corrcoef(np.concatenate([wrench, imu], 1).T) - np.eye(12)
    assert np.abs(together).max() < 5 / np.sqrt(count)  # of axes and senses, each its own
    follows = np.corrcoef(imu[:-1, 0], imu[1:, 0])[0, 1]
    assert abs(follows) < 4 / np.sqrt(count)


def test_draws_are_uniform_normal_and_apart():
    keys = np.arange(2000, dtype=np.uint64)
    u, z = uniform(keys, 50), normal(keys, 51)
    assert z.shape == (2000, 51) and 0 < u.min() and u.max() <= 1
    assert abs(u.mean() - 0.5) < 0.004 and abs((z**2).mean() - 1) < 0.02
    assert abs((z**4).mean() - 3) < 0.15  # a normal law's
    assert len(np.unique(u)) == u.size
    assert np.array_equal(uniform(keys[7:9], 50), u[7:9])


def test_lost_samples_are_as_many_as_stated_and_the_one_before_stays():
    lossy, clean = world((Imu(rate=EVERY, dropout=0.25),), 4), world((Imu(rate=EVERY),), 4)
    got, true = [lossy.reset(seed=0)[0]["imu"][:, -1:]], [clean.reset(seed=0)[0]["imu"][:, -1:]]
    for action in actions(clean, 40):
        got.append(lossy.step(action)[0]["imu"])
        true.append(clean.step(action)[0]["imu"])
    got, true = np.concatenate(got, 1), np.concatenate(true, 1)
    lost = (got != true).any(2)
    stays = (got[:, 1:] == got[:, :-1]).all(2)
    assert (stays | ~lost[:, 1:]).all()
    assert abs(lost.mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / lost.size)
    assert not np.array_equal(lost[0], lost[1])


def test_action_repeat_shows_all_samples_within_it():
    senses = (Imu(rate=4), "joints", "audio")
    twice, once = world(senses, action_repeat=2), world(senses)
    same(twice.reset(seed=0)[0]["joints"], once.reset(seed=0)[0]["joints"])
    for _ in range(12):
        action = once.expert()
        got = twice.step(action)[0]
        parts = [once.step(action)[0] for _ in range(2)]
        for key in ("imu", "audio"):
            same(got[key], np.concatenate([p[key] for p in parts], 1))
        same(got["joints"], parts[1]["joints"])


# The engine's record


def test_recording_substeps_leaves_state_and_derived_fields_as_step_does():
    env = world(("wrench", "imu", "contacts", "touch"), 3)
    env.reset(seed=0)
    for _ in range(9):
        env.step(env.expert())
    sims = [Sim(env.model, 3, 1) for _ in range(3)]
    whole, single, recorded = sims
    fields = ("sensordata", "site_xpos", "xmat", "geom_xpos", "qacc", "cvel", "xaxis")
    for sim in sims:
        [getattr(sim, name) for name in fields]
        sim.state[:] = env.sim.state
    masks = (None, np.array([True, False, True]), None)
    everything = slice(0, env.model.nsensordata)
    for mask in masks:
        whole.step(20, mask)
        (data,) = recorded.record(20, mask, [everything])
        ran = slice(None) if mask is None else mask
        for k in range(20):
            single.step(1, mask)
            assert np.array_equal(data[:, k], single.sensordata[ran]), k
        assert np.array_equal(whole.state, recorded.state)
        for name in fields:
            assert np.array_equal(getattr(whole, name), getattr(recorded, name)), name
