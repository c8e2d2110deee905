"""The loader: it bends, drives and lifts as its geometry says; gravel goes where words say."""

import mujoco
import numpy as np
import pytest

from umwelten.agents.policy import Expert, Random
from umwelten.envs import earthmoving, ground
from umwelten.envs.env import BatchEnv
from umwelten.envs.language import NAMES, RGBA
from umwelten.robots import body, loader
from umwelten.rollout import rollout
from umwelten.score import HELD_OUT


@pytest.fixture(scope="module")
def model():
    return ground.lay(loader.spec(), timestep=0.01, memory=0, square=2, meets=14).compile()


def at_home(model):
    data = mujoco.MjData(model)
    data.qpos[:], data.act[:] = loader.home(), loader.HOME[:3]
    mujoco.mj_forward(model, data)
    return data


def run(model, data, seconds, levers):
    """Steps with the levers `(4,)`, or with what levers(data) says."""
    for _ in range(round(seconds / model.opt.timestep)):
        data.ctrl[:] = levers(data) if callable(levers) else levers
        mujoco.mj_step(model, data)
    mujoco.mj_forward(model, data)


# ---- the body


def test_it_is_of_the_class(model):
    assert model.body_mass.sum() == pytest.approx(15000)
    struck = np.prod(np.subtract(loader.HIGH, loader.LOW)[:2]) * 0.6
    assert struck == pytest.approx(2.0, rel=0.05)  # m^3 under a heap 0.6 m deep
    assert tuple(model.joint(i).name for i in range(model.njnt)) == ("base", *loader.JOINTS)
    assert tuple(model.actuator(i).name for i in range(model.nu)) == loader.ACTUATORS
    np.testing.assert_allclose(model.actuator_ctrlrange[:, 1], loader.VELOCITY)
    np.testing.assert_allclose(model.actuator_forcerange[:, 1], loader.EFFORT)
    np.testing.assert_allclose(model.jnt_range[1:4], loader.LIMITS)
    assert "loader" not in body.arms()
    assert model.site("tcp").id >= 0 and model.site("imu").id >= 0 and model.camera("cab").id >= 0


def test_it_stands_still_on_its_wheels(model):
    data = at_home(model)
    assert data.site("tcp").xpos[2] == pytest.approx(0.06, abs=0.03)
    run(model, data, 2, (0, 0, 0, 0))
    off = np.abs(data.qpos - loader.home())
    assert off[:3].max() < 3e-3 and off[7:].max() < 0.015  # m; rad: the oil gives a little
    assert data.ncon == 4 and data.contact.dist.min() > -1e-3
    assert np.abs(data.qvel).max() < 1e-3


def going_round(model, steer, speed):
    """The radius in m (left > 0) on which either axle goes round, bent by `steer` rad."""
    data = at_home(model)
    run(model, data, 8, lambda d: (4 * (steer - d.act[0]), speed, 0, 0))
    ahead = data.body("base").xmat.reshape(3, 3)[:, 0]
    return ahead @ data.qvel[:3] / data.qvel[5]


@pytest.mark.parametrize("steer, speed", [(0.2, 2), (0.45, 1.5), (-0.69, 1.5), (0.5, -1.5)])
def test_its_axles_go_round_on_the_circle_that_its_bend_makes(model, steer, speed):
    radius = going_round(model, steer, speed)
    bent = (loader.AXLE + loader.AXLE * np.cos(steer)) / np.sin(steer)
    assert radius == pytest.approx(bent, rel=0.02)
    # not on that of a car with turning wheels, which the check would see
    assert radius != pytest.approx(2 * loader.AXLE / np.tan(steer), rel=0.02) or abs(steer) < 0.4


def test_it_drives_straight_as_fast_as_it_is_told_and_stops(model):
    data = at_home(model)
    run(model, data, 6, (0, 3.0, 0, 0))
    assert data.qvel[0] == pytest.approx(3.0, rel=0.05)
    assert abs(data.qpos[1]) < 0.01 and abs(data.qvel[5]) < 1e-3
    wheels = data.qvel[9:13] * loader.RADIUS
    np.testing.assert_allclose(wheels, data.qvel[0], rtol=0.01)  # it rolls
    run(model, data, 4, (0, 0, 0, 0))
    assert abs(data.qvel[0]) < 0.05


def test_levers_command_rates_and_let_go_it_stays(model):
    data = at_home(model)
    run(model, data, 2, (0, 0, 0.3, -0.3))
    assert data.qpos[8] - loader.HOME[1] == pytest.approx(0.6, abs=0.03)
    # boom up and bucket down alike: it has kept its level
    assert data.site("bucket").xmat[6] == pytest.approx(0, abs=0.03)
    held = data.qpos[7:10].copy()
    run(model, data, 2, (0, 0, 0, 0))
    assert np.abs(data.qpos[7:10] - held).max() < 0.02
    run(model, data, 9, (0, 0, 1, 1))
    assert (data.qpos[8:10] < np.array(loader.LIMITS)[1:, 1] + 0.02).all()
    assert data.site("tcp").xpos[2] > 3


# ---- the tasks


def episode(env, policy):
    steps = list(rollout(env, policy, HELD_OUT, episodes_per_row=1))
    return {k: np.stack([s[k] for s in steps]) for k in steps[0] if k != "instruction"}


def gated(env, told, least):
    """Checks an expert's episode of all rows: success, rewards, labels."""
    done, reward, subtask = (told[k] for k in ("label/success", "reward", "label/subtask"))
    assert done[-1].mean() >= least
    assert reward.min() >= 0 and reward.max() <= 1
    assert reward[1:][~done[1:]].max() <= 0.95 < reward[1:][done[1:]].min()
    last = len(env.task.subtasks) - 1
    assert np.array_equal(subtask == last, done) and (subtask[0] == 0).all()
    assert set(np.unique(subtask)) == set(range(last + 1))


@pytest.fixture(scope="module")
def scooped():
    """A world of ten rows whose words were all changed before the expert set to work."""
    env = BatchEnv("ScoopAndDump", 10, labels=True)
    env.reset(seed=HELD_OUT)
    env.sim.userdata[:, 0] = 1 - env.sim.userdata[:, 0]
    steps = []
    for _ in range(round(env.task.time_limit / env.task.control_dt) - 1):
        _, reward, *_, info = env.step(env.expert())
        keys = ("success", "label/subtask", "label/delivered")
        steps.append({"reward": reward} | {k: info[k].copy() for k in keys})
    return env, {k: np.stack([s[k] for s in steps]) for k in steps[0]}


def test_the_expert_dumps_gravel_into_the_hopper_that_the_words_name_now(scooped):
    env, told = scooped
    told = told | {"label/success": told["success"]}
    gated(env, told, 0.9)
    env.sim.userdata[:, 0] = 1 - env.sim.userdata[:, 0]
    assert not env.task.success(env.sim).any()  # to those who asked for the other, nothing is done
    assert env.task.reward(env.sim).max() < 0.7
    env.sim.userdata[:, 0] = 1 - env.sim.userdata[:, 0]


def test_what_was_delivered_is_what_lies_between_the_hoppers_walls(scooped):
    env, told = scooped
    for i in range(env.num_envs):
        data, model = env.sim.batch.get_data(i), env.sim.batch.get_model(i)
        mujoco.mj_forward(model, data)
        hopper = data.body(("hopper", "hopper2")[int(env.sim.userdata[i, 0])])
        mass = 0.0
        for body_id in range(model.nbody):
            if model.body(body_id).name.startswith("grain"):
                seen = (data.xpos[body_id] - hopper.xpos) @ hopper.xmat.reshape(3, 3)
                inside = (np.abs(seen[:2]) < (1.1, 1.7)).all() and seen[2] < 1.6
                mass += inside * model.body_mass[body_id]
        assert told["label/delivered"][-1, i] == pytest.approx(mass, rel=1e-6)
        assert (mass >= 700) == told["success"][-1, i]


def test_chance_and_idleness_deliver_nothing():
    env = BatchEnv("ScoopAndDump", 4, labels=True)
    told = episode(env, Random(4))
    assert not told["label/success"].any() and told["label/subtask"].max() < 4
    assert told["reward"].max() < 0.5


def test_gravel_begins_at_rest_and_nothing_is_inside_another():
    env = BatchEnv("ScoopAndDump", 12)
    env.reset(seed=HELD_OUT)
    sim = env.sim
    piles = {tuple(np.sort(np.abs(sim.qpos[i, 14:]))) for i in range(12)}
    assert len(piles) == 3 and len({tuple(q) for q in sim.qpos[:, 14:]}) > 3  # and mirrored
    for i in range(6):
        data = sim.batch.get_data(i)
        mujoco.mj_forward(sim.batch.get_model(i), data)
        assert data.contact.dist.min() > -1e-3
    before = sim.qpos[:, 14:].copy()
    for _ in range(5):
        env.step(np.zeros((12, 4)))
    assert np.abs(sim.qpos[:, 14:] - before).max() < 2e-3  # a heap creeps


def test_a_grain_on_the_wrong_side_of_a_wall_does_not_count():
    env = BatchEnv("ScoopAndDump", 1)
    env.reset(seed=0)
    sim, task = env.sim, env.task
    turn = 2 * np.arctan2(sim.mocap_quat[0, 0, 3], sim.mocap_quat[0, 0, 0])
    middle, along = sim.mocap_pos[0, 0, :2], np.array([np.cos(turn), np.sin(turn)])
    for off, counts in ((0.0, 1), (1.0, 1), (1.2, 0), (-1.0, 1), (-1.2, 0)):
        sim.qpos[0, 14:17] = *(middle + off * along), 0.2
        assert task._delivered(sim)[0, 0] == counts
    sim.qpos[0, 14:17] = *middle, 1.7
    assert task._delivered(sim)[0, 0] == 0


def test_the_expert_drives_to_the_post_that_the_words_name():
    env = BatchEnv("LoaderDrive", 40, labels=True)
    gated(env, episode(env, Expert(env)), 0.95)
    assert episode(env, Random(4))["label/success"][-1].mean() <= 0.1
    env.reset(seed=HELD_OUT)
    asked = env.sim.userdata[:, 0].copy()
    env.sim.userdata[:, 0] = (asked + 1) % 3
    for _ in range(149):
        env.step(env.expert())
    assert env.task.success(env.sim).mean() >= 0.95
    env.sim.userdata[:, 0] = asked
    assert not env.task.success(env.sim).any()


@pytest.mark.parametrize(
    "name, geoms",
    [
        ("LoaderDrive", earthmoving._POSTS),
        ("ScoopAndDump", tuple(f"{h}_near" for h in earthmoving._HOPPERS)),
    ],
)
def test_words_name_the_thing_that_is_meant_by_its_colour(name, geoms):
    env = BatchEnv(name, 60)
    _, info = env.reset(seed=5)
    used = set()
    for i in range(60):
        colours = []
        for geom in geoms:
            rgba = env.sim.model_field("geom_rgba")[i, env.model.geom(geom).id]
            colours.append(NAMES[int(np.abs(RGBA - rgba).max(1).argmin())])
        assert len(set(colours)) == len(colours)
        said = [c for c in colours if f"the {c} " in info["instruction"][i]]
        assert said == [colours[int(env.sim.userdata[i, 0])]]
        used.add(int(env.sim.userdata[i, 0]))
    assert used == set(range(len(geoms)))
    assert len({w.replace(c, "") for w in info["instruction"] for c in NAMES if c in w}) >= 3
