"""Each variation does to physics and pictures what its drawn value says, and nothing else."""

import mujoco
import numpy as np
import pytest

from umwelten.envs.env import BatchEnv
from umwelten.envs.language import RGBA
from umwelten.envs.perturb import KINDS
from umwelten.envs.raycast import RayCamera
from umwelten.envs.sim import Sim

G = 9.81
STILL = np.zeros((1, 4), np.float32)


def world(task="PickPlace", n=1, seed=0, **vary):
    """A world with fixed factors or offsets (a pair is a range), begun at a seed."""
    ranges = {k: v if isinstance(v, tuple) else (v, v) for k, v in vary.items()}
    env = BatchEnv(task, n, vary=ranges, nthread=1, cameras=("front",), size=(96, 96))
    env.reset(seed=[seed] * n)
    return env


def drawn(env, name):
    return dict(zip(env.variation.columns, env.variation.values[0], strict=True))[name]


def forward(env, i=0):
    """Row i's own model and data, by the plain engine, with all forces."""
    model, data = env.sim.batch.get_model(i), env.sim.batch.get_data(i)
    mujoco.mj_forward(model, data)
    return model, data


def test_every_kind_is_tested_here():
    tested = {name.split("_")[2] for name in globals() if name.startswith("test_of_")}
    assert tested | {"language"} == set(KINDS)  # words: test_paraphrase


# what of the state a kind changes at the start, beyond its fields
START = {"size": {"qpos"}, "layout": {"qpos"}, "start": {"qpos", "ctrl", "mocap_pos"}}
START["table"] = {"mocap_pos"}


@pytest.mark.parametrize("name", KINDS)
def test_nothing_else_changes(name):
    plain, varied = world(), BatchEnv("PickPlace", 1, vary=(name,), cameras=("front",), size=(8, 8))
    varied.reset(seed=0)
    fields = set(KINDS[name].fields)
    for field in set(plain.sim.varied) | set(varied.sim.varied):
        same = np.array_equal(plain.sim.model_field(field), varied.sim.model_field(field))
        assert same or field in fields, field
    for field in ("qpos", "qvel", "ctrl", "mocap_pos", "mocap_quat", "userdata"):
        same = np.array_equal(getattr(plain.sim, field), getattr(varied.sim, field))
        assert same != (field in START.get(name, set())), field
    changed = {
        f
        for f in fields & set(varied.sim.varied)
        if not np.array_equal(plain.sim.model_field(f), varied.sim.model_field(f))
    }
    assert bool(changed) == bool(fields)


def test_of_mass_what_is_heavier_needs_more_force():
    for factor in (0.5, 1.0, 3.0):
        env = world(mass=factor)
        model, data = forward(env)
        body = model.body("cube").id
        plain = forward(world())[0]
        assert model.body_mass[body] == pytest.approx(factor * plain.body_mass[body])
        np.testing.assert_allclose(model.body_inertia[body], factor * plain.body_inertia[body])
        assert model.body_subtreemass[body] == pytest.approx(model.body_mass[body])
        for _ in range(200):
            mujoco.mj_step(model, data)
        lift = data.qfrc_constraint[model.body_dofadr[body] + 2]
        assert lift == pytest.approx(factor * plain.body_mass[body] * G, rel=0.01)


def test_of_size_a_bigger_thing_rests_higher_and_weighs_the_same():
    for factor in (0.7, 1.0, 1.4):
        env = world(size=factor)
        model, data = forward(env)
        assert data.contact.dist.min(initial=0) > -1e-4
        for name in ("cube", "cylinder"):
            z = model.jnt_qposadr[model.joint(name).id] + 2
            assert data.qpos[z] == pytest.approx(0.02 * factor, abs=1e-9)
        for _ in range(200):
            mujoco.mj_step(model, data)
        assert data.qpos[z] == pytest.approx(0.02 * factor, abs=5e-4)
        body = model.body("cube").id
        side, mass = 2 * 0.02 * factor, model.body_mass[body]
        np.testing.assert_allclose(model.body_inertia[body], mass * side**2 / 6)
        assert mass == forward(world())[0].body_mass[body]


def test_of_friction_sliding_distance():
    """A pushed cube slides v^2 / (2 mu g)."""
    for factor in (0.25, 0.5, 1.0):
        model, data = forward(world(friction=factor))
        joint = model.joint("cube").id
        at, dof = model.jnt_qposadr[joint], model.jnt_dofadr[joint]
        data.qpos[at : at + 2] = 0.35, 0.0
        data.qpos[at + 3 : at + 7] = 1, 0, 0, 0
        data.qpos[model.jnt_qposadr[model.joint("cylinder").id] + 1] = 0.3
        for _ in range(100):
            mujoco.mj_step(model, data)
        start, speed = data.qpos[at + 1], 0.4
        data.qvel[dof + 1] = speed
        for _ in range(200):
            mujoco.mj_step(model, data)
        truth = speed**2 / (2 * 0.6 * factor * G)
        assert data.qpos[at + 1] - start == pytest.approx(truth, rel=0.15)


def test_of_damping_the_force_against_speed():
    model, data = forward(world(damping=1.7))
    data.qvel[:6] = speed = np.linspace(-1, 1, 6)
    mujoco.mj_forward(model, data)
    plain = world().model.dof_damping[:6]
    np.testing.assert_allclose(data.qfrc_damper[:6], -1.7 * plain * speed)


def test_of_gain_the_force_of_an_actuator():
    forces = []
    for factor in (1.0, 0.5):
        model, data = forward(world(gain=factor))
        data.ctrl[:6] += 0.01
        mujoco.mj_forward(model, data)
        forces.append(data.actuator_force[:6].copy())
    np.testing.assert_allclose(forces[1], 0.5 * forces[0], rtol=1e-6)


def test_of_colour_and_texture_things_stay_what_they_are_called_and_the_rest_changes():
    for seed in range(5):
        env, plain = (
            BatchEnv("PickPlace", 1, vary=v) for v in (("colour", "texture"), {"texture": (0, 0)})
        )
        env.reset(seed=seed), plain.reset(seed=seed)
        now, before = (e.sim.model_field("geom_rgba")[0] for e in (env, plain))
        for name in ("cube", "cylinder", "disc", "disc2"):
            g = env.model.geom(name).id
            assert not np.array_equal(now[g], before[g])
            nearest = [np.abs(RGBA - rgba[g]).sum(1).argmin() for rgba in (now, before)]
            assert nearest[0] == nearest[1]
        table, share = env.model.geom("table").id, drawn(env, "texture/table")
        most = share * np.maximum(before[table, :3], 1 - before[table, :3])
        assert 0 < np.abs(now[table, :3] - before[table, :3]).max() <= most.max() + 1e-6
        # the floor's colour is its material's, which its texture is multiplied with
        assert np.array_equal(now[env.model.geom("floor").id], [0.5, 0.5, 0.5, 1])
        floor = env.model.mat("floor").id
        assert not np.array_equal(env.sim.varied["mat_rgba"][0, floor], env.model.mat_rgba[floor])


def test_of_texture_there_is_one_for_every_visible_surface():
    env = BatchEnv("Reach", 1, vary=("texture",))
    assert {"texture/table", "texture/floor", "texture/palm"} <= set(env.variation.columns)
    assert not any("ball" in column for column in env.variation.columns)
    # what is fixed or hinged may be named by its colour too
    columns = [
        str(BatchEnv("Drawer", 1, vary=(k,)).variation.columns) for k in ("texture", "colour")
    ]
    assert "table" in columns[0] and "drawer" not in columns[0] and "drawer" in columns[1]


@pytest.mark.parametrize("task", ["Tag", "PushBall2v2", "Maze", "Drawer", "CarryTogether"])
def test_of_texture_what_words_or_sides_are_told_by_keeps_its_colour(task):
    """What a task paints anew in an episode, it does so that words may name it."""
    plain, env = BatchEnv(task, 4), BatchEnv(task, 4, vary={"texture": (1, 1)})
    plain.reset(seed=0), env.reset(seed=0)
    now, before = (e.sim.model_field("geom_rgba") for e in (env, plain))
    painted = (before != plain.model.geom_rgba).any((0, 2))
    painted[[plain.model.geom(name).id for name in env.task.named]] = True
    assert painted.any() and np.array_equal(now[:, painted], before[:, painted])
    assert not np.array_equal(now, before)


def picture(env, change):
    """The scene of env as an unvaried model would show it to which `change` was done."""
    model = env.task.spec().compile()
    change(model)
    sim = Sim(model, 1, 1)
    camera = RayCamera(sim, ("front",), (96, 96))
    for name in ("geom_rgba",):
        sim.vary(name)[:] = env.sim.model_field(name)
    sim.state[:] = env.sim.state
    sim.forward(np.array([0]))
    return camera.render()["rgb/front"][0].astype(int)


def shown(env):
    return env._camera.render()["rgb/front"][0].astype(int)


def test_of_light_the_picture_is_that_of_a_scene_lit_so():
    env = world(light=0.5)

    def dim(model):
        model.light_diffuse[:] *= 0.5
        model.vis.headlight.ambient[:] *= 0.5
        model.vis.headlight.diffuse[:] *= 0.5

    assert np.abs(shown(env) - picture(env, dim)).max() <= 1
    assert shown(env).mean() < 0.85 * shown(world()).mean()


def test_of_lamp_the_picture_is_that_of_a_scene_lit_from_there():
    env = world(lamp=0.6)

    def move(model):
        model.light_pos[:] += 0.6

    assert np.abs(shown(env) - picture(env, move)).max() <= 1
    assert np.abs(shown(env) - shown(world())).max() > 10


def test_lights_differ_from_row_to_row():
    env = world(n=2, light=(0.4, 1.6))
    env.reset(seed=[0, 1])
    one, two = env._camera.render()["rgb/front"].astype(float)
    sky_free = (one.sum(-1) > 0) & (two.sum(-1) > 0)
    ratio = two[sky_free].mean() / one[sky_free].mean()
    more = env.variation.values[1].mean() > env.variation.values[0].mean()
    assert (ratio > 1) == more and abs(ratio - 1) > 0.02


def pinhole(place, eye, turn, fovy, size=96):
    """Column and row of a point in the picture of a camera that looks along -z."""
    x, y, z = turn.T @ (place - eye)
    focal = size / 2 / np.tan(np.deg2rad(fovy) / 2)
    return size / 2 + focal * x / -z - 0.5, size / 2 - focal * y / -z - 0.5


@pytest.mark.parametrize("name, value", [("camera", 0.08), ("aim", 0.06), ("fov", 1.3)])
def test_of_camera_and_aim_and_fov_pixels_move_as_the_pinhole_says(name, value):
    plain, env = world("Reach"), world("Reach", **{name: value})
    model = plain.model
    camera, ball = model.camera("front").id, model.geom("ball").id
    eye, turn = model.cam_pos[camera].copy(), np.empty(9)
    quat, fovy = model.cam_quat[camera].copy(), model.cam_fovy[camera]
    if name == "camera":
        eye += value
    elif name == "aim":
        mujoco.mju_quatIntegrate(quat, np.full(3, value), 1.0)
    else:
        fovy *= value
    mujoco.mju_quat2Mat(turn, quat)
    truth = pinhole(env.sim.geom("ball")[0], eye, turn.reshape(3, 3), fovy)
    spots = []
    for e in (plain, env):
        image = e._camera.render()["segmentation/front"][0]
        rows, columns = np.nonzero(image == ball)
        spots.append((columns.mean(), rows.mean()))
    assert np.abs(np.subtract(spots[1], truth)).max() < 0.6
    assert np.abs(np.subtract(spots[1], spots[0])).max() > 1.5


# the three are one test; these keep the list of what is tested honest
test_of_aim_is_above = test_of_fov_is_above = None


def test_of_start_joints_are_where_they_were_plus_the_values():
    plain, env = world(), world(start=(-0.2, 0.2))
    joints = [c.partition("/")[2] for c in env.variation.columns]
    assert joints == ["waist", "shoulder", "elbow", "forearm", "wrist", "tool"]
    moved = [env.sim.joint(j)[0, 0] - plain.sim.joint(j)[0, 0] for j in joints]
    np.testing.assert_allclose(moved, env.variation.values[0], atol=1e-12)
    assert np.abs(moved).max() > 0.05
    # the commanded place begins where the tool is, so nothing jumps
    tip = env.sim.site("tcp").copy()
    assert np.array_equal(env.sim.mocap_pos[:, 0], tip)
    env.step(np.array([[0, 0, 0, 1]]))
    assert np.abs(env.sim.site("tcp") - tip).max() < 0.03


def test_of_layout_things_move_by_what_is_said_and_keep_apart():
    plain = BatchEnv("PickPlace", 30)
    env = BatchEnv("PickPlace", 30, vary={"layout": (-0.1, 0.1)}, labels=True)
    plain.reset(seed=0)
    _, info = env.reset(seed=0)
    moved = env.sim.qpos - plain.sim.qpos
    at = [env.model.jnt_qposadr[env.model.joint(t).id] for t in ("cube", "cylinder")]
    told = info["label/perturbation"].reshape(30, 2, 2)
    np.testing.assert_allclose([moved[:, a : a + 2] for a in at], told.swapaxes(0, 1), atol=1e-12)
    assert np.array_equal(env.sim.mocap_pos[:, 1:], plain.sim.mocap_pos[:, 1:])  # discs do not
    assert np.abs(told).max() > 0.06 and np.abs(told).max() <= 0.1
    model = env.model
    for other in ("cylinder", "disc"):
        reach = sum(model.geom_rbound[model.geom(name).id] for name in ("cube", other))
        places = [
            e.sim.joint("cylinder")[:, :2] if other == "cylinder" else e.sim.mocap_pos[:, 1, :2]
            for e in (env, plain)
        ]
        gap, before = (
            np.linalg.norm(e.sim.joint("cube")[:, :2] - place, axis=1)
            for e, place in zip((env, plain), places, strict=True)
        )
        assert (gap >= np.minimum(reach, before) - 1e-6).all()


def test_of_table_the_robot_stands_lower_where_the_table_is_higher():
    plain, env = world(), world(table=0.02)
    lower = plain.sim.site("tcp") - env.sim.site("tcp")
    np.testing.assert_allclose(lower[0], [0, 0, 0.02], atol=1e-12)
    assert np.array_equal(plain.sim.joint("cube"), env.sim.joint("cube"))
    for _ in range(80):
        *_, info = env.step(env.expert())
    assert info["success"][0]


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_of_latency_the_answer_comes_later_by_just_that_many_steps(steps):
    plain, late = BatchEnv("PickPlace", 2), BatchEnv("PickPlace", 2, vary={"latency": (steps,) * 2})
    plain.reset(seed=0), late.reset(seed=0)
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (10, 2, 4)).astype(np.float32)
    sent = np.concatenate([np.zeros((steps, 2, 4), np.float32), actions])
    for t in range(10):
        ours, theirs = late.step(actions[t]), plain.step(sent[t])
        assert np.array_equal(ours[0]["proprio"], theirs[0]["proprio"])
        assert np.array_equal(ours[1], theirs[1])


def test_of_latency_in_repeated_actions_counts_control_steps():
    late = BatchEnv("Reach", 1, vary={"latency": (3, 3)}, action_repeat=2)
    plain = BatchEnv("Reach", 1)
    plain.reset(seed=0), late.reset(seed=0)
    a, b = np.full((1, 4), 0.5), np.full((1, 4), -0.5)
    ours = [late.step(x)[0]["proprio"] for x in (a, b, b)]
    theirs = [plain.step(x)[0]["proprio"] for x in (STILL, STILL, STILL, a, a, b)]
    for k in range(3):
        assert np.array_equal(ours[k], theirs[2 * k + 1])


@pytest.mark.parametrize("task", ["PickPlace", "FindSound"])
def test_of_latency_a_script_says_what_is_right_when_it_arrives(task):
    """The rows do, late by 0 to 3 steps, what they do on time once they begin to act."""
    n, steps = 4, 79
    late, plain = BatchEnv(task, n, vary={"latency": (0, 3)}), BatchEnv(task, n)
    seeds = [9, 1, 0, 4]
    seen = late.reset(seed=seeds)[0], plain.reset(seed=seeds)[0]
    lag = late.variation.late
    assert lag.tolist() == [0, 1, 2, 3]
    nothing = np.zeros(plain.action_space.shape, np.float32)
    for t in range(steps):
        assert np.array_equal(seen[0]["proprio"], seen[1]["proprio"])
        before = late.physics()
        action = late.expert()
        assert np.array_equal(late.physics(), before)
        on_time = np.where((t >= lag)[:, None], plain.expert(), nothing)
        (obs, *_, info), (other, *_) = late.step(action), plain.step(on_time)
        seen = obs, other
    if task == "PickPlace":
        assert info["success"].all()
        # A script that knows of nothing on its way swings around its goal.
        late.reset(seed=seeds)
        for _ in range(steps):
            info = late.step(np.clip(late.task.expert(late.sim), -1, 1))[-1]
        assert not info["success"][lag > 0].any()


def test_of_noise_it_is_normal_fresh_at_each_step_and_leaves_the_world_alone():
    clean, env = BatchEnv("PickPlace", 40), BatchEnv("PickPlace", 40, vary={"noise": (0.02, 0.02)})
    gaps = []
    (a, _), (b, _) = clean.reset(seed=0), env.reset(seed=0)
    gaps.append(b["objects"] - a["objects"])
    for _ in range(3):
        x, y = clean.step(np.zeros((40, 4))), env.step(np.zeros((40, 4)))
        assert np.array_equal(x[1], y[1])
        gaps.append(y[0]["objects"] - x[0]["objects"])
    gaps = np.stack(gaps).reshape(4, -1)
    assert abs(gaps.mean()) < 1e-3 and gaps.std() == pytest.approx(0.02, rel=0.03)
    assert np.mean(np.abs(gaps) < 0.02) == pytest.approx(0.683, abs=0.02)
    assert np.abs(np.corrcoef(gaps) - np.eye(4)).max() < 0.08
    rows = gaps.reshape(4, 40, -1).swapaxes(0, 1).reshape(40, -1)
    assert np.abs(np.corrcoef(rows) - np.eye(40)).max() < 0.45
    assert np.array_equal(clean.sim.state, env.sim.state)
    again = env._observe()["objects"]
    assert np.array_equal(again, env._observe()["objects"])
