"""The Control Suite's tasks are the suite's: same physics, observations, rewards and starts."""

import functools
import warnings
from pathlib import Path

import mujoco
import numpy as np
import pytest
from scipy.stats import ks_2samp, kstest, uniform

from umwelten import registry
from umwelten.envs import suite
from umwelten.envs.env import BatchEnv
from umwelten.envs.raycast import RayCamera

MEMBERS = registry.members("envs")
STATE = ("qpos", "qvel", "act", "qacc_warmstart")

DOMAINS = {
    "cartpole": ("balance", "balance_sparse", "swingup", "swingup_sparse"),
    "pendulum": ("swingup",),
    "acrobot": ("swingup", "swingup_sparse"),
    "reacher": ("easy", "hard"),
    "point_mass": ("easy", "hard"),
    "ball_in_cup": ("catch",),
    "finger": ("spin", "turn_easy", "turn_hard"),
    "hopper": ("stand", "hop"),
    "walker": ("stand", "walk", "run"),
    "cheetah": ("run",),
    "fish": ("upright", "swim"),
    "quadruped": ("walk", "run"),
    "humanoid": ("stand", "walk", "run"),
    "dog": ("stand", "walk", "trot", "run"),
    "swimmer": ("swimmer6", "swimmer15"),
}
# what the suite draws by editing its model
EDITS = {
    "reacher": [("geom_pos", "geom", "target")],
    "fish_swim": [("geom_pos", "geom", "target")],
    "swimmer": [("geom_pos", "geom", "target"), ("light_pos", "light", "target_light")],
    "point_mass_hard": [("wrap_prm", None, None)],
}


def name_of(domain, task):
    whole = task if domain == "swimmer" else f"{domain.removeprefix('ball_in_')}_{task}"
    return "".join(part.capitalize() for part in whole.split("_"))


TASKS = {name_of(d, t): (d, t) for d, tasks in DOMAINS.items() for t in tasks}


@functools.cache
def theirs(domain, task):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no window library; cheetah's deprecated attribute
        from dm_control.suite import load

        return load(domain, task, task_kwargs={"random": 0})


def edit(env, i, world, domain, task):
    """Gives the suite's model what our row i has of its own."""
    if task.startswith("turn"):  # our target is a geom, theirs a site
        target = env.sim.varied["geom_pos"][i, env.model.geom("target").id]
        world.physics.named.model.site_pos["target"] = target
        return
    for field, kind, name in EDITS.get(f"{domain}_{task}", EDITS.get(domain, [])):
        value, model = env.sim.varied[field][i], world.physics.model.ptr
        if kind:
            k, mine = getattr(model, kind)(name).id, getattr(env.model, kind)(name).id
            getattr(model, field)[k] = value[mine]
        else:
            getattr(model, field)[:] = value


def put(env, i, world, state):
    """Puts the suite's world into row i of a state, the solver's memory included."""
    data = world.physics.data.ptr
    for field, rows in state.items():
        getattr(data, field)[:] = rows[i]
    mujoco.mj_forward(world.physics.model.ptr, data)
    data.qacc_warmstart[:] = state["qacc_warmstart"][i]


def flat(observation):
    return np.concatenate([np.ravel(v) for v in observation.values()])


def together(name, domain, task, steps=200):
    """The largest differences of observations and rewards between ours and the suite's."""
    n = 2
    env, world = BatchEnv(name, n, nthread=1), theirs(domain, task)
    env.reset(seed=5)
    start = {f: getattr(env.sim, f).copy() for f in STATE}
    rng = np.random.default_rng(0)
    ours, paid, controls = [], [], []
    for _ in range(steps):
        shown, reward, ended, *_ = env.step(rng.uniform(-1, 1, env.action_space.shape))
        ours.append(env.task.observe(env.sim)["proprio"].copy())
        np.testing.assert_allclose(shown["proprio"], ours[-1], rtol=1e-6, atol=1e-6)
        paid.append(reward)
        controls.append(env.sim.ctrl.copy())
        assert not ended.any()
    seen, worth = 0.0, 0.0
    for i in range(n):
        world.reset()
        edit(env, i, world, domain, task)
        put(env, i, world, start)
        for t in range(steps):
            step = world.step(controls[t][i])
            there = flat(step.observation)
            assert there.shape == ours[t][i].shape and not step.last()
            seen = max(seen, np.abs(there - ours[t][i]).max())
            worth = max(worth, abs(step.reward - paid[t][i]))
    return seen, worth


def test_every_task_of_the_suite_is_held_to_it():
    folder = Path(suite.__file__).parent
    files = {m.module: folder / f"{m.module.rpartition('.')[2]}.py" for m in MEMBERS.values()}
    using = {module for module, file in files.items() if "import suite" in file.read_text()}
    assert {n for n, m in MEMBERS.items() if m.module in using} == TASKS.keys()
    assert len(TASKS) >= 30


@pytest.mark.parametrize("name", TASKS)
def test_a_task_goes_on_as_the_suites_does(name):
    seen, worth = together(name, *TASKS[name])
    assert seen <= 1e-9 and worth <= 1e-9


@pytest.mark.parametrize(
    "name, other", [("WalkerRun", "WalkerWalk"), ("QuadrupedRun", "QuadrupedWalk")]
)
def test_another_task_would_be_noticed(name, other):
    assert max(together(name, *TASKS[other])) > 1e-3


@pytest.mark.parametrize("name", TASKS)
def test_clock_and_bounds_are_the_suites(name):
    env, world = BatchEnv(name, 1), theirs(*TASKS[name])
    assert world.control_timestep() == pytest.approx(env.task.control_dt, rel=1e-12)
    steps = round(env.task.time_limit / env.task.control_dt)
    assert np.ceil(world._step_limit - 1e-9) == steps == 1000
    bounds = world.action_spec()
    assert np.array_equal(bounds.minimum, env.sim.ctrl_low)
    assert np.array_equal(bounds.maximum, env.sim.ctrl_high)


# ---- starts


def drawn(env):
    """Our rows' starts, `(n, d)`: state, and what the suite writes into its model."""
    edited = [env.sim.varied[f].reshape(env.num_envs, -1) for f in sorted(env.sim.varied)]
    return np.concatenate([env.sim.qpos, env.sim.qvel, env.sim.act, *edited], 1)


STARTS = ["CartpoleBalance", "CartpoleSwingup", "PendulumSwingup", "AcrobotSwingup"]
STARTS += ["ReacherEasy", "PointMassEasy", "PointMassHard", "CupCatch", "FingerSpin", "HopperHop"]
STARTS += ["WalkerWalk", "CheetahRun", "FishSwim", "QuadrupedWalk", "HumanoidRun", "DogStand"]
STARTS += ["Swimmer6"]


@pytest.mark.parametrize("name", STARTS)
def test_episodes_begin_as_the_suites_do(name):
    n, (domain, task) = 200, TASKS[name]
    env, world = BatchEnv(name, n, nthread=1), theirs(domain, task)
    env.reset(seed=0)
    ours, there = drawn(env), []
    for _ in range(n):
        world.reset()
        data, model = world.physics.data.ptr, world.physics.model.ptr
        edited = [getattr(model, f).ravel() for f in sorted(env.sim.varied)]
        there.append(np.concatenate([data.qpos, data.qvel, data.act, *edited]))
    there = np.array(there)
    assert ours.shape == there.shape
    free = there.std(0) > 1e-12
    np.testing.assert_allclose(ours[:, ~free], there[:, ~free], atol=1e-12)
    assert free.any()
    for mine, other in zip(ours[:, free].T, there[:, free].T, strict=True):
        assert ks_2samp(mine, other, method="asymp").pvalue > 1e-4
        assert ks_2samp(2.5 * mine, other, method="asymp").pvalue < 1e-4  # this would be noticed
        width = np.ptp(other)
        assert mine.min() > other.min() - width / 2 and mine.max() < other.max() + width / 2


@pytest.mark.parametrize("name", ["FingerTurnHard", "FingerTurnEasy"])
def test_targets_of_the_finger_are_where_its_tip_can_be(name):
    env = BatchEnv(name, 200)
    env.reset(seed=0)
    way = env.sim.geom("target") - env.sim.sensor("spinner")
    np.testing.assert_allclose(np.hypot(way[:, 0], way[:, 2]), 0.13, rtol=1e-12)
    assert np.abs(way[:, 1]).max() == 0
    angle = np.arctan2(way[:, 0], way[:, 2])
    assert kstest(angle, uniform(-np.pi, 2 * np.pi).cdf).pvalue > 1e-3


@pytest.mark.parametrize("name", ["CupCatch", "FingerSpin", "HumanoidWalk", "QuadrupedRun"])
def test_nothing_touches_anything_at_a_start(name):
    env = BatchEnv(name, 20)
    env.reset(seed=3)
    for i in range(20):
        assert env.sim.batch.get_data(i).ncon == 0


def test_a_start_that_cannot_be_free_is_refused():
    env = BatchEnv("HumanoidStand", 1)
    env.reset(seed=0)

    def propose():
        env.sim.qpos[0, 2] = 0.0

    with pytest.raises(RuntimeError, match="in 3 tries"):
        suite.place_freely(env.sim, 0, propose, 3)


# ---- what every task promises


@pytest.mark.parametrize("name", TASKS)
def test_a_row_is_the_same_alone_and_among_others(name):
    alone = BatchEnv(name, 1, max_episode_steps=8, physics=True)
    among = BatchEnv(name, 3, max_episode_steps=8, physics=True, nthread=2)
    one, three = alone.reset(seed=[7]), among.reset(seed=[1, 7, 2])
    rng = np.random.default_rng(0)
    for _ in range(20):  # over two ends of episodes
        (a, *_, m), (b, *_, k) = one, three
        assert a["proprio"][0].tobytes() == b["proprio"][1].tobytes()
        assert m["physics"][0].tobytes() == k["physics"][1].tobytes()
        actions = rng.uniform(-1, 1, among.action_space.shape)
        one, three = alone.step(actions[1:2]), among.step(actions)
        assert one[1][0] == three[1][1]


@pytest.mark.parametrize("name", TASKS)
def test_chance_stays_below_the_return_that_counts_as_solved(name):
    n, steps = 6, 250
    env = BatchEnv(name, n, nthread=1)
    solved = MEMBERS[name].constants["solved"]
    assert solved == env.task.solved and 0 < solved < 1000
    env.reset(seed=1)
    rng, paid = np.random.default_rng(0), np.zeros(n)
    for _ in range(steps):
        reward = env.step(rng.uniform(-1, 1, env.action_space.shape))[1]
        assert (reward >= 0).all() and (reward <= 1).all()
        paid += reward
    assert paid.mean() / steps < 0.8 * solved / 1000


def test_feedback_balances_the_cartpole():
    env = BatchEnv("CartpoleBalance", 20)
    obs, _ = env.reset(seed=0)
    gains, total = np.array([0.6, 0, 10.0, 0.9, 2.0]), np.zeros(20)
    for _ in range(1000):
        obs, reward, _, _, info = env.step(np.clip(obs["proprio"] @ gains, -1, 1)[:, None])
        total += reward
    assert total.min() > env.task.solved and info["success"].all()


@pytest.mark.parametrize("name", TASKS)
def test_the_camera_shows_the_body(name):
    view = MEMBERS[name].constants["camera"]
    env = BatchEnv(name, 2, cameras=(view,), size=(48, 48))
    assert isinstance(env._camera, RayCamera)  # primitives alone, so pictures are cheap
    for picture in env.reset(seed=0)[0][f"segmentation/{view}"]:
        body = [g for g in np.unique(picture[picture >= 0]) if env.model.geom_bodyid[g]]
        assert np.isin(picture, body).sum() >= (2 if name.startswith("Point") else 8)
        torso = [g for g in range(env.model.ngeom) if env.model.geom(g).name == "torso"]
        assert np.isin(torso, picture).all()  # the camera is the torso's, but tracks from outside
