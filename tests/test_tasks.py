"""Tasks: what the words ask for decides, the expert does it, chance does not, rewards say so."""

import re
import zlib

import mujoco
import numpy as np
import pytest

from umwelten import registry
from umwelten.agents.policy import Expert, Random
from umwelten.envs.env import BatchEnv
from umwelten.envs.language import NAMES, RGBA, decode
from umwelten.envs.task import Task
from umwelten.rollout import rollout
from umwelten.score import HELD_OUT

NAMES_OF_TASKS = list(registry.members("envs"))
EPISODES = {"ScoopAndDump": 20}  # where a hundred take minutes; 100 of all others
REST = {"ScoopAndDump": 2e-3}  # of rocks of 42 cm; 1e-3 (m, rad) of all others
# A task either states a return that counts as solved, or has words, an expert and subtasks.
GROUNDED = [n for n, m in registry.members("envs").items() if m.constants["solved"] is None]
# what the words can speak of: columns of userdata that choose, and among which geoms they do
THINGS = {
    "Reach": {0: ("ball", "cube", "cylinder")},
    "Push": {0: ("cube", "cylinder"), 1: ("disc", "disc2")},
    "PickPlace": {0: ("cube", "cylinder"), 1: ("disc", "disc2")},
}
SHAPES = {
    mujoco.mjtGeom.mjGEOM_SPHERE: "ball",
    mujoco.mjtGeom.mjGEOM_BOX: "cube",
    mujoco.mjtGeom.mjGEOM_CYLINDER: "cylinder",
}


@pytest.mark.parametrize("name", NAMES_OF_TASKS)
def test_a_task_has_words_and_an_expert_or_a_return_that_counts_as_solved(name):
    env = BatchEnv(name, 1)
    obs, info = env.reset(seed=0)
    has_expert = env.task.expert(env.sim) is not None
    if name in GROUNDED:
        assert info["instruction"][0] and decode(obs["instruction"][0]) == info["instruction"][0]
        assert has_expert and len(env.task.subtasks) >= 2
    else:
        most = env.task.time_limit / env.task.control_dt
        assert 0 < env.task.solved < most and not has_expert


def run(env, policy, seed=HELD_OUT):
    """The steps of one episode of each row, as `{key: (t, n, ...)}`."""
    steps = list(rollout(env, policy, seed, episodes_per_row=1))
    return {k: np.stack([s[k] for s in steps]) for k in steps[0] if k != "instruction"}


def random(env):
    return Random(env.single_action_space.shape[0])


def falls(env):
    """Whether the body can fall, which ends an episode: it neither rests nor lasts by itself."""
    return type(env.task).terminated is not Task.terminated


def check_rewards(name, episode):
    """In [0, 1]; of a grounded task, success pays more than anything else does."""
    ended = np.cumsum(episode["last"], 0) - episode["last"]  # rows that wait for the others' end
    own = (ended == 0)[1:]
    reward, success = episode["reward"][1:][own], episode["label/success"][1:][own]
    assert reward.min() >= 0 and reward.max() <= 1
    if name not in GROUNDED:
        return
    assert success.all() or reward[~success].max() < 0.99
    # Reach pays for precision within its success too; its reward falls with distance alone
    assert reward[success].min(initial=1) > (0.85 if name == "Reach" else 0.95)
    # where both occur the border is sharp: less than a hundredth is paid on both of its sides
    if success.any() and not success.all():
        assert reward[success].min() > reward[~success].max() - 0.01


@pytest.mark.parametrize("name", GROUNDED)
def test_the_expert_does_what_is_asked(name):
    env = BatchEnv(name, EPISODES.get(name, 100), labels=True)
    episode = run(env, Expert(env))
    done = episode["label/success"][-1]
    assert episode["last"][-1].all() and done.mean() >= 0.95
    check_rewards(name, episode)
    assert episode["reward"].max() > 0.97
    subtask, last = episode["label/subtask"], len(env.task.subtasks) - 1
    assert subtask.dtype == np.int32 and subtask.min() >= 0 and subtask.max() <= last
    assert np.array_equal(subtask == last, episode["label/success"])
    assert (subtask[0] == 0).all() and set(np.unique(subtask)) == set(range(last + 1))


@pytest.mark.parametrize("name", GROUNDED)
def test_chance_does_not_do_what_is_asked(name):
    env = BatchEnv(name, EPISODES.get(name, 100), labels=True)
    episode = run(env, random(env))
    assert episode["label/success"][-1].mean() <= 0.10
    check_rewards(name, episode)
    subtask = episode["label/subtask"]
    assert subtask.min() >= 0 and subtask.max() < len(env.task.subtasks)


@pytest.mark.parametrize("name", NAMES_OF_TASKS)
def test_the_time_limit_is_the_registered_one_and_no_end_of_the_world(name):
    import gymnasium

    env = BatchEnv(name, 2)
    spec = gymnasium.spec(registry.gym_id(registry.find("envs", name)))
    steps = spec.max_episode_steps
    assert steps == round(env.task.time_limit / env.task.control_dt)
    if falls(env):
        return
    episode = run(env, random(env))
    assert len(episode["last"]) == steps + 1 and episode["last"][-1].all()
    assert not episode["last"][:-1].any() and not episode["terminal"].any()
    np.testing.assert_allclose(episode["time"][-1], env.task.time_limit)


# ---- scenes


@pytest.mark.parametrize("name", GROUNDED)
def test_scenes_begin_at_rest_and_nothing_is_inside_another(name):
    n = 30
    env = BatchEnv(name, n)
    env.reset(seed=HELD_OUT)
    sim = env.sim
    for i in range(n):
        data = sim.batch.get_data(i)
        mujoco.mj_forward(sim.batch.get_model(i), data)
        assert data.contact.dist.min(initial=0) > -1e-3
    if falls(env):
        return
    before = sim.qpos.copy()
    still = np.zeros((n, len(env.action_spec)))
    for k, component in enumerate(env.action_spec.components):
        still[:, k] = 1.0 if component.name.endswith("gripper") else 0.0  # jaws begin open
    for _ in range(round(0.5 / env.task.control_dt)):
        env.step(still)
    assert np.abs(sim.qpos - before).max() < REST.get(name, 1e-3)


@pytest.mark.parametrize("name", ["Push", "PickPlace"])
def test_things_begin_apart_from_each_other_and_the_arm(name):
    env = BatchEnv(name, 25)
    env.reset(seed=HELD_OUT)
    model = env.model
    things = [model.geom(g).id for g in THINGS[name][0]]
    others = [*(g for g in range(model.ngeom) if model.geom_contype[g] == 2), *things]
    for i in range(25):
        data = env.sim.batch.get_data(i)
        mujoco.mj_forward(env.sim.batch.get_model(i), data)
        for a in things:
            gaps = [mujoco.mj_geomDistance(model, data, a, b, 0.02, None) for b in others]
            assert min(g for g, b in zip(gaps, others, strict=True) if b != a) > 0.01


@pytest.mark.parametrize("name", ["Push", "PickPlace"])
def test_objects_weigh_what_each_row_says(name):
    env = BatchEnv(name, 40, physics=True)
    _, info = env.reset(seed=0)
    for thing in THINGS[name][0]:
        body = env.model.body(thing).id
        mass = env.sim.varied["body_mass"][:, body].copy()
        assert 0.05 <= mass.min() < 0.07 and 0.17 < mass.max() <= 0.2
        assert len(set(mass.tolist())) == 40
        # it is in the row: what is loaded elsewhere weighs as much there
        assert all(m in row for m, row in zip(mass, info["physics"], strict=True))
        other = BatchEnv(name, 40)
        other.reset(seed=99)
        other.set_physics(np.arange(40), info["physics"])
        assert np.array_equal(other.sim.varied["body_mass"][:, body], mass)
        # and the table feels it
        for i in (0, 1):
            model, data = env.sim.batch.get_model(i), env.sim.batch.get_data(i)
            assert model.body_subtreemass[body] == mass[i]
            inertia = model.body_inertia[body] / env.model.body_inertia[body]
            np.testing.assert_allclose(inertia, mass[i] / env.model.body_mass[body])
            for _ in range(200):
                mujoco.mj_step(model, data)
            lift = data.qfrc_constraint[model.body_dofadr[body] + 2]
            assert lift == pytest.approx(mass[i] * 9.81, rel=0.01)


@pytest.mark.parametrize("name", ["Push", "PickPlace"])
def test_contact_labels_are_the_engines_own_contacts(name):
    env = BatchEnv(name, 12, labels=True)
    env.reset(seed=3)
    sim, model, policy = env.sim, env.model, Expert(env)
    fingers = [model.geom(f).id for f in ("left", "right")]
    seen = set()
    for _ in range(45):
        step = env.step(policy.act({}, {})[0])
        label, which = step[4]["label/contact"], step[4]["label/target"]
        for i in range(0, 12, 3):
            data = sim.batch.get_data(i)
            mujoco.mj_forward(sim.batch.get_model(i), data)
            thing = model.geom(THINGS[name][0][which[i]]).id
            pairs = {tuple(sorted(pair)) for pair in data.contact.geom.tolist()}
            truth = [tuple(sorted((f, thing))) in pairs for f in fingers]
            assert label[i].tolist() == truth
            seen.add(tuple(truth))
    assert (False, False) in seen and len(seen) >= 2


# ---- words


def looks(env, i, geom):
    """The colour and shape that one can see of a geom in row i."""
    g = env.model.geom(geom).id
    rgba = env.sim.model_field("geom_rgba")[i, g]
    near = np.abs(RGBA - rgba).max(1)
    assert (near < 1e-6).sum() == 1
    return NAMES[int(near.argmin())], SHAPES[mujoco.mjtGeom(int(env.model.geom_type[g]))]


def understood(text, scene):
    """The things that the n-th phrase of a text can mean, where scene[n] = [(colour, shape)]."""
    phrases = re.findall(r"the (?:(\w+) )?(ball|cube|cylinder|disc|one)\b", text)
    assert len(phrases) == len(scene), text
    answer = []
    for (colour, noun), things in zip(phrases, scene, strict=True):
        assert not colour or colour in NAMES
        fits = [k for k, (c, s) in enumerate(things) if colour in ("", c) and noun in ("one", s)]
        answer.append(fits)
    return answer


def scene_of(env, name, i):
    out = []
    for geoms in THINGS[name].values():
        things = [looks(env, i, g) for g in geoms]
        if geoms[0].startswith("disc"):
            assert {s for _, s in things} == {"cylinder"}
            things = [(c, "disc") for c, _ in things]
        out.append(things)
    return out


@pytest.mark.parametrize("name", THINGS)
def test_words_mean_one_thing_and_that_is_the_one_the_task_means(name):
    n = 200
    env = BatchEnv(name, n)
    obs, info = env.reset(seed=0)
    used = np.zeros(3, bool)
    for i in range(n):
        text = decode(obs["instruction"][i])
        assert text == info["instruction"][i] and text
        meant = [[int(env.sim.userdata[i, k])] for k in THINGS[name]]
        assert understood(text, scene_of(env, name, i)) == meant, text
        colour, noun = re.search(r"the (?:(\w+) )?(ball|cube|cylinder|one)", text).groups()
        used |= [noun == "one", not colour, bool(colour) and noun != "one"]
    assert used.all()  # colour alone, shape alone, and both occur
    texts = len({re.sub("|".join(NAMES), "", t) for t in info["instruction"]})
    assert texts >= 6


def test_the_reader_of_words_is_not_one_who_agrees_to_anything():
    scene = [[("red", "cube"), ("red", "cylinder")], [("blue", "disc"), ("green", "disc")]]
    assert understood("push the red one to the blue disc", scene) == [[0, 1], [0]]
    assert understood("push the cube to the red disc", scene) == [[0], []]
    assert understood("put the cylinder on the green disc", scene) == [[1], [1]]


def choices(name):
    return [(name, column) for column in THINGS[name]]


@pytest.mark.parametrize("name, column", [c for name in THINGS for c in choices(name)])
def test_the_words_decide_what_success_is_and_where_the_expert_goes(name, column):
    n, count = 30, len(THINGS[name][column])
    env = BatchEnv(name, n)
    _, info = env.reset(seed=HELD_OUT)
    said = info["instruction"]
    observed = env.task.observe(env.sim)["objects"].copy()
    asked = env.sim.userdata[:, column].copy()
    other = (asked + 1) % count
    env.sim.userdata[:, column] = other  # same scene, same start, another wish
    now = [env.task.instruction(env.sim, i) for i in range(n)]
    assert not any(a == b for a, b in zip(said, now, strict=True))
    assert (env.task.observe(env.sim)["objects"] != observed).any(1).all()
    for _ in range(round(env.task.time_limit / env.task.control_dt) - 1):
        env.step(env.expert())
    paid, done = env.task.reward(env.sim).copy(), env.task.success(env.sim).copy()
    assert done.mean() >= 0.9
    env.sim.userdata[:, column] = asked
    assert env.task.success(env.sim).mean() <= 0.05
    assert (env.task.reward(env.sim)[done] < paid[done] - 0.05).all()


@pytest.mark.parametrize("name", NAMES_OF_TASKS)
def test_a_task_holds_no_state(name):
    env = BatchEnv(name, 3)
    env.reset(seed=0)
    before = {k: repr(v) for k, v in vars(env.task).items()}
    for _ in range(3):
        env.step(np.full((3, len(env.action_spec)), 0.3))
    assert {k: repr(v) for k, v in vars(env.task).items()} == before


@pytest.mark.parametrize("name", NAMES_OF_TASKS)
def test_what_a_task_says_is_of_the_present_state_alone(name):
    """Two worlds with one physics row in common say the same there, whatever came before."""
    one, two = BatchEnv(name, 4), BatchEnv(name, 4)
    one.reset(seed=0)
    two.reset(seed=50)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    for _ in range(7):
        one.step(rng.uniform(-1, 1, (4, len(one.action_spec))))
        two.step(rng.uniform(-1, 1, (4, len(one.action_spec))))
    two.set_physics(np.arange(4), one.physics())
    one.set_physics(np.arange(4), one.physics())
    if (one.model.sensor_needstage == int(mujoco.mjtStage.mjSTAGE_ACC)).any():
        # forces and accelerations are of the step that led here, so that takes one more
        action = rng.uniform(-1, 1, (4, len(one.action_spec)))
        one.step(action)
        two.step(action)
    for method in ("reward", "success", "terminated", "expert"):
        a, b = (getattr(env.task, method)(env.sim) for env in (one, two))
        assert (a is None and b is None) or np.array_equal(a, b), method
    reward, success = one.task.judge(one.sim)
    assert np.array_equal(reward, one.task.reward(one.sim))
    assert np.array_equal(success, one.task.success(one.sim)) and success.dtype == bool
    a, b = (env.task.observe(env.sim) for env in (one, two))
    assert all(np.array_equal(a[k], b[k]) for k in a)
