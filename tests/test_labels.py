"""Labels are what the engine itself knows of the row, and asking for them changes nothing."""

import mujoco
import numpy as np
import pytest

from umwelten.envs import labels
from umwelten.envs.env import BatchEnv
from umwelten.envs.relations import BINARY
from umwelten.envs.sim import Sim
from umwelten.envs.tabletop import PickPlace
from umwelten.registry import members

TASKS = ("PickPlace", "Stack", "Push")
EVERY = {"reward/dense", "reward/sparse", "subtask", "next_subtask", "progress"}
OF_THINGS = {"pose", "relations", "contacts", "robot_contact"}


def episode(name, n=6, every=7):
    """Yields a labelled world of the task's expert with the labels of every few steps."""
    env = BatchEnv(name, n, labels=True)
    _, info = env.reset(seed=3)
    for t in range(round(env.task.time_limit / env.task.control_dt) - 1):
        if t % every == 0:
            yield env, {k[6:]: v for k, v in info.items() if k.startswith("label/")}, info
        *_, info = env.step(env.expert())


@pytest.mark.parametrize("name", TASKS)
def test_contacts_grasps_and_poses_are_the_engines(name):
    names = labels.things(BatchEnv(name, 1).model)
    seen = {"contacts": set(), "robot_contact": set(), "grasp": set()}
    for env, told, _ in episode(name):
        model = env.model
        bodies = [model.body(thing).id for thing in names]
        for i in range(0, 6, 2):
            data = env.sim.batch.get_data(i)
            mujoco.mj_forward(env.sim.batch.get_model(i), data)
            assert np.array_equal(told["pose"][i, :, :3], data.xpos[bodies])
            assert np.array_equal(told["pose"][i, :, 3:], data.xquat[bodies])
            met = np.zeros((model.nbody, model.nbody), bool)
            one, two = model.geom_bodyid[data.contact.geom].T
            met[one, two] = met[two, one] = True
            truth = met[np.ix_(bodies, bodies)]
            robot = np.flatnonzero(model.body_rootid == model.body("base").id)
            arm = met[bodies][:, robot].any(1)
            fingers = [model.geom_bodyid[model.geom(f).id] for f in ("left", "right")]
            both = met[bodies][:, fingers].all(1)
            for key, value in (("contacts", truth), ("robot_contact", arm), ("grasp", both)):
                assert np.array_equal(told[key][i], value), key
                seen[key] |= set(value.ravel().tolist())
    assert seen["robot_contact"] == {True, False}
    assert name == "Push" or seen["grasp"] == {True, False}
    assert name != "Stack" or seen["contacts"] == {True, False}


@pytest.mark.parametrize("name", TASKS)
def test_relations_progress_and_what_comes_next_follow_the_task(name):
    on, first = BINARY.index("on"), None
    for env, told, info in episode(name):
        names, last = labels.things(env.model), len(env.task.subtasks) - 1
        first = told if first is None else first
        thing = [j for j, x in enumerate(names) if "disc" not in x]
        lies = told["relations"][..., on]
        if name != "Push":  # on its success a pushed thing may still lean
            done = info["success"]
            assert lies[done][:, thing].any((1, 2)).all()
        assert (told["next_subtask"] == np.minimum(told["subtask"] + 1, last)).all()
        np.testing.assert_allclose(told["progress"], told["subtask"] / last)
        assert (told["progress"][info["success"]] == 1).all()
    assert not first["relations"][..., on].any() and not first["progress"].any()
    assert told["progress"].mean() > 0.8


def test_a_world_with_labels_is_the_same_world():
    plain, told = (BatchEnv("PickPlace", 3, labels=flag) for flag in (False, True))
    assert told.model.nsensor > plain.model.nsensor and plain.fingerprint == told.fingerprint
    a, b = plain.reset(seed=0)[0], told.reset(seed=0)[0]
    for t in range(15):
        assert all(np.array_equal(a[k], b[k]) for k in a)
        assert np.array_equal(plain.physics(), told.physics())
        action = np.random.default_rng(t).uniform(-1, 1, (3, 4))
        a, b = plain.step(action)[0], told.step(action)[0]
    other = BatchEnv("PickPlace", 3)
    other.load(told.save())
    action = np.zeros((3, 4))
    assert np.array_equal(other.step(action)[0]["objects"], told.step(action)[0]["objects"])


def test_things_are_what_is_seen_and_no_robots():
    assert labels.things(BatchEnv("PickPlace", 1).model) == ["disc", "disc2", "cube", "cylinder"]
    assert labels.things(BatchEnv("CartpoleSwingup", 1).model) == []
    env = BatchEnv("CartpoleSwingup", 1, labels=True)
    _, info = env.reset(seed=0)
    told = {k for k in info if k.startswith("label/")}
    terms = {f"reward/{k}" for k in ("upright", "calm", "slow", "centred")}
    assert told == {f"label/{k}" for k in terms | EVERY}


class Told(PickPlace):
    """PickPlace that tells its own progress and a term of its reward."""

    def label(self, sim):
        mine = {"progress": np.full(sim.n, 0.25), "reward/near": self.reward(sim)}
        return super().label(sim) | mine


def test_what_a_task_says_itself_is_kept():
    env = BatchEnv(Told(), 2, labels=True)
    _, info = env.reset(seed=0)
    assert info["label/progress"].tolist() == [0.25, 0.25]
    assert np.array_equal(info["label/reward/near"], env.task.reward(env.sim))


def test_reachable_is_where_the_tool_comes_to():
    env = BatchEnv("Reach", 40, labels=True)
    _, info = env.reset(seed=0)
    env.sim.mocap_pos[20:, 1:4, 0] += 0.4  # beyond
    env.sim.forward(np.arange(40))
    for _ in range(40):
        *_, info = env.step(env.expert())
    reachable = info["label/reachable"][np.arange(40), info["label/target"]]
    assert np.array_equal(reachable, info["success"])
    assert reachable[:20].all() and not reachable[20:].any()


def test_a_mesh_lies_within_its_box_and_only_what_can_touch_is_sensed():
    spec = mujoco.MjSpec()
    corners = np.array([[0, 0, 0], [0.1, 0, 0], [0, 0.06, 0], [0, 0, 0.03]])
    spec.add_mesh(name="wedge", uservert=corners.ravel())
    body = spec.worldbody.add_body(name="wedge", pos=(0, 0, 0.2))
    body.add_freejoint()
    body.add_geom(type=mujoco.mjtGeom.mjGEOM_MESH, meshname="wedge")
    fixed = spec.worldbody.add_body(name="fixed", pos=(1, 0, 0))
    fixed.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=(0.1, 0.1, 0.1))
    ghost = spec.worldbody.add_body(name="ghost", mocap=True)
    ghost.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=(0.1, 0, 0), contype=0, conaffinity=0)
    labels.prepare(spec)
    model = spec.compile()
    assert [model.sensor(k).name for k in range(model.nsensor)] == ["labels/wedge/fixed"]
    sim = Sim(model, 1, 1)
    sim.reset(np.array([0]))
    for name in ("xpos", "xquat", "geom_xpos", "geom_xmat", "sensordata"):
        getattr(sim, name)
    rng = np.random.default_rng(0)
    for _ in range(5):
        turn = rng.standard_normal(4)
        sim.qpos[0, 3:] = turn / np.linalg.norm(turn)
        sim.forward(np.array([0]))
        centre, half = labels._box(sim, [0])
        frame = sim.geom_xmat[0, 0].reshape(3, 3)
        points = sim.geom_xpos[0, 0] + model.mesh_vert @ frame.T
        assert (np.abs(points - centre) <= half + 1e-6).all()


@pytest.mark.parametrize("name", sorted(members("envs")))
def test_every_task_has_the_same_keys_and_its_rewards_terms_make_what_is_paid(name):
    env = BatchEnv(name, 3, nthread=1, labels=True)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(6):
        action = rng.uniform(-1, 1, env.action_space.shape)
        scripted = env.task.expert(env.sim)
        if scripted is not None:
            action[:2] = np.clip(scripted[:2], -1, 1)
        _, reward, _, _, info = env.step(action)
        told, terms = (k[6:] for k in info if k.startswith("label/")), env.task.terms(env.sim)
        assert set(told) >= EVERY | {f"reward/{k}" for k in terms} and terms
        assert np.array_equal(env.task.pay(**terms), reward)
        # as numbers too, which is how records have them
        assert np.array_equal(
            env.task.pay(**{k: v.astype(float) for k, v in terms.items()}), reward
        )
        np.testing.assert_array_equal(info["label/reward/dense"], reward.astype(np.float32))
        assert np.array_equal(info["label/reward/sparse"], info["success"])
        for key, value in terms.items():
            assert value.shape == (3,)
            np.testing.assert_array_equal(info[f"label/reward/{key}"], value.astype(np.float32))
    assert info["label/subtask"].dtype == info["label/next_subtask"].dtype == np.int32
    assert ({k[6:] for k in info} >= OF_THINGS) == bool(labels.things(env.model))


def test_recorded_terms_make_the_recorded_reward():
    env = BatchEnv("PickPlace", 4, labels=True)
    env.reset(seed=0)
    for _ in range(60):
        *_, info = env.step(env.expert())
        terms = {k: info[f"label/reward/{k}"] for k in env.task.terms(env.sim)}
        np.testing.assert_allclose(env.task.pay(**terms), info["label/reward/dense"], rtol=1e-5)
    assert info["label/reward/placed"].any()
