"""The Control Suite's tasks are the suite's: same physics, observations, rewards and starts."""

import functools
import warnings

import mujoco
import numpy as np
import pytest

from umwelten import registry
from umwelten.envs import suite as ours
from umwelten.envs.env import BatchEnv

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
    "swimmer": [("geom_pos", "geom", "target")],
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
        from dm_control import suite

        return suite.load(domain, task, task_kwargs={"random": 0})


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


def put(env, i, world):
    """Puts the suite's world where our row i is, the solver's memory included."""
    data = world.physics.data.ptr
    for field in ("qpos", "qvel", "act", "qacc_warmstart"):
        getattr(data, field)[:] = getattr(env.sim, field)[i]
    mujoco.mj_forward(world.physics.model.ptr, data)
    data.qacc_warmstart[:] = env.sim.qacc_warmstart[i]


def flat(observation):
    return np.concatenate([np.ravel(v) for v in observation.values()])


def test_every_task_of_the_suite_here_is_held_to_it():
    listed = registry.members("envs")
    here = {n for n, m in listed.items() if "suite." in open_source(m.module)}
    assert here == TASKS.keys() and len(here) >= 30


def open_source(module):
    from pathlib import Path

    return (Path(ours.__file__).parent / f"{module.rpartition('.')[2]}.py").read_text()


@pytest.mark.parametrize("name", TASKS)
def test_a_task_goes_on_as_the_suites_does(name):
    domain, task = TASKS[name]
    n, steps = 2, 200
    env = BatchEnv(name, n, nthread=1)
    env.reset(seed=5)
    world = theirs(domain, task)
    start = {f: getattr(env.sim, f).copy() for f in ("qpos", "qvel", "act", "qacc_warmstart")}
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (steps, n, len(env.action_spec))).astype(np.float32)
    seen, paid, controls = [], [], []
    for action in actions:
        shown, reward, ended, *_ = env.step(action)
        seen.append(env.task.observe(env.sim)["proprio"].copy())
        np.testing.assert_allclose(shown["proprio"], seen[-1], rtol=1e-6, atol=1e-6)
        controls.append(env.sim.ctrl.copy())
        paid.append(reward)
        assert not ended.any()
    assert world.control_timestep() == pytest.approx(env.task.control_dt, rel=1e-12)
    limit = round(env.task.time_limit / env.task.control_dt)
    assert np.ceil(world._step_limit - 1e-9) == limit
    bounds = world.action_spec()
    assert np.array_equal(bounds.minimum, env.sim.ctrl_low)
    assert np.array_equal(bounds.maximum, env.sim.ctrl_high)
    for i in range(n):
        world.reset()
        edit(env, i, world, domain, task)
        data = world.physics.data.ptr
        for field, rows in start.items():
            getattr(data, field)[:] = rows[i]
        mujoco.mj_forward(world.physics.model.ptr, data)
        data.qacc_warmstart[:] = start["qacc_warmstart"][i]
        for t in range(steps):
            step = world.step(controls[t][i])
            np.testing.assert_allclose(seen[t][i], flat(step.observation), rtol=0, atol=1e-9)
            assert paid[t][i] == pytest.approx(step.reward, abs=1e-9)
            assert not step.last()
