"""The G1: its numbers are the maker's, its feet hold it up, its hands go where words say."""

import mujoco
import numpy as np
import pytest

from umwelten.agents.policy import Expert, Random, Replay
from umwelten.envs import ground, legs
from umwelten.envs.env import BatchEnv
from umwelten.envs.language import NAMES, RGBA
from umwelten.robots import body, g1
from umwelten.rollout import rollout
from umwelten.score import HELD_OUT

# Of the left side, then the waist, as the maker's and LeRobot's tables give them.
LEG = ("hip_pitch", "hip_roll", "hip_yaw", "knee", "ankle_pitch", "ankle_roll")
ARM = ("shoulder_pitch", "shoulder_roll", "shoulder_yaw", "elbow")
ARM += ("wrist_roll", "wrist_pitch", "wrist_yaw")
LIMITS = {
    "left_hip_pitch": (-2.531, 2.880), "left_hip_roll": (-0.524, 2.967),
    "right_hip_roll": (-2.967, 0.524), "left_hip_yaw": (-2.758, 2.758),
    "left_knee": (-0.087, 2.880), "left_ankle_pitch": (-0.873, 0.524),
    "left_ankle_roll": (-0.262, 0.262), "waist_yaw": (-2.618, 2.618), "waist_roll": (-0.52, 0.52),
    "left_shoulder_pitch": (-3.089, 2.670), "left_shoulder_roll": (-1.588, 2.252),
    "right_shoulder_roll": (-2.252, 1.588), "left_elbow": (-1.047, 2.094),
    "left_wrist_roll": (-1.972, 1.972), "left_wrist_yaw": (-1.614, 1.614),
}  # fmt: skip
EFFORT = [88, 139, 88, 139, 35, 35] * 2 + [88, 35, 35] + [25] * 5 + [5] * 2 + [25] * 5 + [5] * 2
STIFFNESS = [150, 150, 150, 300, 40, 40] * 2 + [250] * 3 + [50, 50, 80, 80, 40, 40, 40] * 2


@pytest.fixture(scope="module")
def model():
    return ground.lay(g1.spec(), timestep=0.004, memory=0, square=1).compile()


def at(model, q):
    data = mujoco.MjData(model)
    data.qpos[:] = q
    mujoco.mj_forward(model, data)
    return data


# ---- the body


def test_its_joints_are_the_makers_in_the_makers_order(model):
    sides = [tuple(f"{s}_{j}" for j in part) for part in (LEG, ARM) for s in ("left", "right")]
    waist = ("waist_yaw", "waist_roll", "waist_pitch")
    assert (*sides[0], *sides[1], *waist, *sides[2], *sides[3]) == g1.JOINTS
    assert tuple(model.joint(i).name for i in range(model.njnt)) == ("base", *g1.JOINTS)
    assert tuple(model.actuator(i).name for i in range(model.nu)) == g1.JOINTS
    for joint, limits in LIMITS.items():
        assert model.joint(joint).range == pytest.approx(limits, abs=1e-3), joint
    np.testing.assert_allclose(model.actuator_forcerange[:, 1], EFFORT)
    np.testing.assert_allclose(model.actuator_gainprm[:, 0], STIFFNESS)
    np.testing.assert_allclose(model.actuator_biasprm[:, 1], -np.array(STIFFNESS, float))
    assert "g1" not in body.arms()


def test_its_links_weigh_what_the_makers_do(model):
    leg, arm = (1.35, 1.52, 1.702, 1.932, 0.074, 0.608), (0.718, 0.643, 0.734, 0.6)
    for side in ("left", "right"):
        for joint, mass in zip((*LEG, *ARM), (*leg, *arm), strict=False):
            assert model.body(f"{side}_{joint}").mass[0] == pytest.approx(mass)
    assert model.body("base").mass[0] == pytest.approx(3.813)
    assert model.body_mass.sum() == pytest.approx(33.34, abs=0.01)


def test_its_legs_and_arms_are_as_long_as_the_makers(model):
    data = at(model, np.eye(36)[3])
    # the maker's own model stands straight-legged with the pelvis 0.793 m above the ground
    assert -data.site("left_foot").xpos[2] == pytest.approx(0.793, abs=2e-3)
    assert data.site("left_foot").xpos[:2] == pytest.approx((0, 0.1185), abs=1e-3)
    hip = np.array([0, 0.064452 + 0.052, -0.1027 - 0.030465])
    thigh = np.linalg.norm(data.body("left_knee").xpos - hip - (0, 0.0021, 0))
    assert thigh == pytest.approx(np.hypot(0.1179 + 0.1882, 0), abs=1e-3)
    np.testing.assert_allclose(data.site("left_foot").xmat, np.eye(3).ravel(), atol=1e-9)


def test_left_and_right_are_mirror_images(model):
    rng = np.random.default_rng(0)
    low, high = np.array(g1.LIMITS).T
    q = rng.uniform(low, high)
    flip = np.array([-1 if j.endswith(("roll", "yaw")) else 1 for j in g1.JOINTS])
    order = [*range(6, 12), *range(6), 12, 13, 14, *range(22, 29), *range(15, 22)]
    one, two = (at(model, [0, 0, 2, 1, 0, 0, 0, *x]) for x in (q, (flip * q)[order]))
    for site in ("foot", "palm"):
        left, right = one.site(f"left_{site}").xpos, two.site(f"right_{site}").xpos
        np.testing.assert_allclose(left, right * (1, -1, 1), atol=2e-4)
    assert np.abs(one.site("left_palm").xpos - one.site("right_palm").xpos * (1, -1, 1)).max() > 0.1


def test_at_home_its_soles_lie_on_the_ground_under_its_weight(model):
    data = at(model, g1.home())
    data.qpos[2] -= 5e-4
    mujoco.mj_forward(model, data)
    corners = {tuple(c.round(3)) for c in data.contact.pos[:, :2]}
    assert len(corners) == 8 and np.abs(data.contact.dist + 5e-4).max() < 2e-4
    ankle, weight = data.site("left_foot").xpos, data.subtree_com[1]
    along = sorted({x for x, _ in corners})
    assert along[-1] - along[0] == pytest.approx(0.17, abs=2e-3)
    assert along[0] < weight[0] - 0.03 and weight[0] + 0.03 < along[-1]
    assert abs(weight[1]) < 1e-3 and weight[0] > ankle[0]


def test_the_feets_forces_carry_the_weight():
    """Truth: what `pressed` asks of the joints, and the ground's forces, are in equilibrium."""
    env = BatchEnv("G1Reach", 3)
    env.reset(seed=0)
    sim, v = env.sim, legs.views(env.sim)
    sim.qvel[:] = 0
    sim.forward(np.arange(3))
    cop = v.com[:, :2] + np.array([[0.0, 0.0], [0.02, 0.0], [-0.01, 0.01]])
    high = v.com[:, 2] - v.feet[:, :, 2].mean(1)
    torque = legs.pressed(v, np.full((3, 2), 0.5), cop, high, legs.heading(v), twist=0.0)
    for i in range(3):
        m, d = env.model, sim.batch.get_data(i)
        mujoco.mj_forward(m, d)
        tall, out = v.com[i, 2] - v.feet[i, :, 2].mean(), np.zeros(m.nv)
        tilt = np.array([v.pelvis[i, 5], -v.pelvis[i, 2]])
        weight = v.mass * legs.GRAVITY
        gap = v.com[i, :2] - cop[i]
        force = np.array([*(weight * gap), 0]) / tall + (0, 0, weight)
        force[:2] += np.array([-80 * tilt[1], 80 * tilt[0]]) / tall
        middle = v.feet[i].mean(0)
        for k, foot in enumerate(("left", "right")):
            at_cop = v.feet[i, k] + (*(cop[i] - middle[:2]), 0)
            body_id = m.site(f"{foot}_foot").bodyid[0]
            mujoco.mj_applyFT(m, d, force / 2, np.zeros(3), at_cop, body_id, out)
        left = d.qfrc_bias - out
        np.testing.assert_allclose(torque[i], left[6:], atol=1e-6)
        # and on the floating pelvis nothing is left over but what shall move it
        np.testing.assert_allclose(left[:3], -force * (1, 1, 0), atol=1e-6)


# ---- the tasks


def episode(env, policy, seed=HELD_OUT):
    steps = list(rollout(env, policy, seed, episodes_per_row=1))
    return {k: np.stack([s[k] for s in steps]) for k in steps[0] if k != "instruction"}


def gated(env, told):
    """Checks an expert's episodes: success, rewards, labels."""
    done, reward, subtask = (told[k] for k in ("label/success", "reward", "label/subtask"))
    assert told["last"][-1].all() and not told["terminal"].any()
    assert done[-1].mean() >= 0.95
    assert reward.min() >= 0 and reward.max() <= 1
    assert reward[1:][~done[1:]].max() <= 0.95 < reward[1:][done[1:]].min()
    last = len(env.task.subtasks) - 1
    assert np.array_equal(subtask == last, done) and (subtask[0] == 0).all()
    assert set(np.unique(subtask)) == set(range(last + 1))


def at_the_end(env, policy):
    """How often each row's first episode ended in success, and in a fall."""
    steps = list(rollout(env, policy, HELD_OUT, episodes_per_row=1))
    ends = [(s["label/success"][s["last"]], s["terminal"][s["last"]]) for s in steps]
    success, fell = (np.concatenate(x) for x in zip(*ends, strict=True))
    assert len(success) == env.num_envs
    return success.mean(), fell.mean()


@pytest.mark.parametrize("name", ["G1Stand", "G1Walk", "G1Reach"])
def test_the_expert_does_it_and_chance_and_stiffness_fall(name):
    env = BatchEnv(name, 30, labels=True)
    gated(env, episode(env, Expert(env)))
    nu = env.single_action_space.shape[0]
    for policy in (Random(nu), Replay(np.zeros((500, nu), np.float32))):
        success, fell = at_the_end(env, policy)
        assert success <= 0.1 and fell == 1


def test_pushes_come_when_and_as_the_row_says():
    env = BatchEnv("G1Stand", 4)
    env.reset(seed=HELD_OUT)
    sim, chest = env.sim, env.model.body("waist_pitch").id
    plan = sim.userdata[:, 1:].reshape(4, 3, 3)
    impulse, drifts = np.zeros((4, 2)), []
    for k in range(480):
        drifts.append(legs.views(sim).drift[:, :2].copy())
        env.step(env.expert())
        pushed = sim.xfrc_applied[:, chest, :2]
        impulse += pushed * env.task.control_dt
        since = k * env.task.control_dt - plan[..., 0]
        due = ((since > -1e-6) & (since < 0.1 - 1e-6)).any(1)
        assert np.array_equal((pushed != 0).any(1), due)
    np.testing.assert_allclose(impulse, (plan[..., 1:] * 0.1).sum(1), atol=1e-9)
    # it is felt: in the first tenth of a second it is not yet all made good
    drifts = np.array(drifts)
    for i in range(4):
        at = int(np.ceil(plan[i, 0, 0] / 0.02 - 1e-6))
        gained = drifts[at + 5, i] - drifts[at, i]
        push = plan[i, 0, 1:] * 0.1 / 33.34
        assert gained @ push > 0.4 * push @ push


@pytest.mark.parametrize("column, count", [(0, 3), (1, 2)])
def test_the_words_decide_which_hand_goes_to_which_ball(column, count):
    env = BatchEnv("G1Reach", 20)
    _, info = env.reset(seed=HELD_OUT)
    said, seen = info["instruction"], env.task.observe(env.sim)["objects"].copy()
    asked = env.sim.userdata[:, column].copy()
    env.sim.userdata[:, column] = (asked + 1) % count
    now = [env.task.instruction(env.sim, i) for i in range(20)]
    assert not any(a == b for a, b in zip(said, now, strict=True))
    assert (env.task.observe(env.sim)["objects"] != seen).any(1).all()
    for _ in range(150):
        env.step(env.expert())
    assert env.task.success(env.sim).mean() >= 0.95
    env.sim.userdata[:, column] = asked
    assert not env.task.success(env.sim).any()


def test_it_walks_as_fast_as_the_words_say_by_putting_one_foot_before_the_other():
    env = BatchEnv("G1Walk", 12)
    _, info = env.reset(seed=HELD_OUT)
    sim, v = env.sim, legs.views(env.sim)
    said = [float(text.split(" m/s")[0].rpartition(" ")[2]) for text in info["instruction"]]
    asked = sim.userdata[:, 0].copy()
    sim.userdata[:, 0] = (asked + 1) % 3  # same start, another wish
    now = np.array([0.1, 0.2, 0.3])[sim.userdata[:, 0].astype(int)]
    assert not any(a == b for a, b in zip(said, now, strict=True))
    off, places = [], []
    for _ in range(390):
        env.step(env.expert())
        off.append(v.feet[:, :, 2] > 0.02)
        places.append(v.com[:, :2].copy())
    off, places = np.array(off), np.array(places)
    np.testing.assert_allclose(places[-1, :, 0] - places[140, :, 0], now * 5.0, atol=0.06)
    assert np.abs(places[:, :, 1]).max() < 0.15
    assert not off.all(2).any()  # never both in the air
    for foot in range(2):  # and each leaves the ground once in two steps, of 0.32 s
        rises = (np.diff(off[:, :, foot].astype(int), axis=0) == 1).sum(0)
        assert (np.abs(rises - 7.8 / 0.64) <= 1.5).all()
    assert env.task.success(sim).all()
    sim.userdata[:, 0] = asked
    assert not env.task.success(sim).any()


def test_words_name_a_ball_by_its_colour_and_a_hand_by_its_side():
    env = BatchEnv("G1Reach", 80)
    _, info = env.reset(seed=3)
    sides = set()
    for i, text in enumerate(info["instruction"]):
        rgba = env.sim.model_field("geom_rgba")[i]
        balls = [rgba[env.model.geom(b).id] for b in ("ball", "ball2", "ball3")]
        colours = [NAMES[int(np.abs(RGBA - x).max(1).argmin())] for x in balls]
        ball, hand = env.sim.userdata[i, :2].astype(int)
        assert [c for c in colours if c in text] == [colours[ball]]
        assert (("left hand" in text), ("right hand" in text)) == (hand == 0, hand == 1)
        sides.add((ball, hand))
    assert len(sides) == 6


@pytest.mark.parametrize("name", ["G1Stand", "G1Walk", "G1Reach"])
def test_it_begins_on_its_feet(name):
    env = BatchEnv(name, 20)
    env.reset(seed=HELD_OUT)
    for i in range(10):
        data = env.sim.batch.get_data(i)
        mujoco.mj_forward(env.sim.batch.get_model(i), data)
        assert data.contact.dist.min(initial=0) > -1e-3
    soles = legs.views(env.sim).feet[..., 2]
    assert np.abs(soles).max() < 1e-3
