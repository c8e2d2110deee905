"""Teams: PettingZoo's checks and stronger ones; who is paid what; what one alone cannot do."""

import types

import numpy as np
import pytest
from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test, render_test
from pettingzoo.test.max_cycles_test import max_cycles_test
from pettingzoo.test.state_test import state_test

from umwelten import registry
from umwelten.envs import fleet, pair, teams
from umwelten.envs.env import BatchEnv
from umwelten.envs.language import NAMES, RGBA
from umwelten.envs.splits import HELD_COLOURS
from umwelten.envs.teams import Team, env, parallel_env
from umwelten.score import HELD_OUT

TEAMS = ("CarryTogether", "Handover", "PushBall2v2", "Tag")
EACH = pytest.mark.parametrize("name", TEAMS)
DRIVEN = ("PushBall2v2", "Tag")


def drawn(world, rng):
    return {
        a: rng.uniform(-1, 1, world.action_space(a).shape).astype(np.float32) for a in world.agents
    }


def alike(a, b):
    """Whether two nested answers are the same to the bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(alike(a[k], b[k]) for k in a)
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(alike, a, b))
    return type(a) is type(b) and np.array_equal(a, b)


def story(world, seed, steps=200):
    """All that happens in `steps` steps under actions that depend on nothing; ended, it resets."""
    rng = np.random.default_rng(9)
    told = [world.reset(seed=seed)]
    for _ in range(steps):
        told.append(world.step(drawn(world, rng)))
        if not world.agents:
            told.append(world.reset())
    return told


class Fickle(teams.ParallelEnv):
    """Draws from the system from the second step on: what a seed test should find."""

    def reset(self, seed=None, options=None):
        self.count, self.noise = 0, np.random.default_rng()
        return super().reset(seed, options)

    def step(self, actions):
        self.count += 1
        obs, *rest = super().step(actions)
        if self.count > 1:
            first = obs[self.possible_agents[0]]
            first["proprio"] = first["proprio"] + np.float32(self.noise.normal())
        return obs, *rest


def test_every_team_is_known_here():
    members = registry.members("envs")
    assert {n for n in members if issubclass(registry.load("envs", n), Team)} == set(TEAMS)


@EACH
@pytest.mark.filterwarnings("ignore::UserWarning")  # Dict spaces; agents without a number
def test_pettingzoo_finds_no_fault(name):
    parallel_api_test(parallel_env(name, max_cycles=20), num_cycles=45)
    parallel_seed_test(lambda: parallel_env(name), num_cycles=20)
    api_test(env(name, max_cycles=20), num_cycles=60)
    state_test(env(name), parallel_env(name))
    part = types.SimpleNamespace(
        parallel_env=lambda max_cycles: parallel_env(name, max_cycles=max_cycles),
        env=lambda max_cycles: env(name, max_cycles=max_cycles),
    )
    max_cycles_test(part)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_pictures_are_what_pettingzoo_expects():
    made = lambda render_mode: env("tag", render_mode="rgb_array")  # noqa: E731 ('human' is tried)
    render_test(made)
    assert parallel_env("tag").render() is None


@EACH
def test_a_seed_decides_two_hundred_steps(name):
    one, two, other = (story(parallel_env(name), seed) for seed in (5, 5, 6))
    assert alike(one, two)
    assert not any(alike(a, b) for a, b in zip(one[:20], other[:20], strict=True))


@EACH
def test_in_what_order_agents_say_their_actions_changes_nothing(name):
    worlds = [parallel_env(name) for _ in range(2)]
    for world in worlds:
        world.reset(seed=5)
    rng = np.random.default_rng(1)
    for _ in range(20):
        actions = drawn(worlds[0], rng)
        shuffled = {a: actions[a] for a in rng.permutation(worlds[0].agents).tolist()}
        assert alike(worlds[0].step(actions), worlds[1].step(shuffled))


def test_a_runner_is_told_and_paid_the_same_by_either_name():
    """Runners that change places, speeds and who is named change all that each of them gets."""
    told = []
    for swap in (False, True):
        world = parallel_env("tag")
        world.reset(seed=4)
        sim = world.world.sim
        if swap:
            for array, size in ((sim.qpos, 9), (sim.qvel, 8)):
                one, two = array[0, size : 2 * size].copy(), array[0, 2 * size : 3 * size].copy()
                array[0, size : 2 * size], array[0, 2 * size : 3 * size] = two, one
            sim.userdata[0, 0] = 1 - sim.userdata[0, 0]
            sim.refresh(np.array([0]))
        names = ("runner_0", "runner_1")[:: -1 if swap else 1]
        move = dict(
            zip(("chaser_0", *names), np.array([[1, 0.3], [0.5, -1], [-1, 0.2]]), strict=True)
        )
        obs, paid, *_ = world.step(move)
        told.append(
            [
                (obs[a]["proprio"], obs[a]["named"][k], paid[a])
                for k, a in zip((0, 1), names, strict=True)
            ]
            + [obs["chaser_0"]["proprio"]]
        )
    for one, two in zip(told[0][:2], told[1][:2], strict=True):
        np.testing.assert_allclose(one[0], two[0], atol=1e-5)
        assert one[2] == pytest.approx(two[2], abs=1e-6)
    np.testing.assert_allclose(told[0][2], told[1][2], atol=1e-5)


def test_what_is_random_from_the_second_step_on_is_seen_here_though_not_by_pettingzoo():
    assert not alike(story(Fickle("tag"), 5, 3), story(Fickle("tag"), 5, 3))
    parallel_seed_test(lambda: Fickle("tag"), num_cycles=20)  # it looks at one step


@EACH
def test_the_world_of_agents_is_the_world_of_one_mind(name):
    many, one = parallel_env(name), BatchEnv(name, 1, labels=True)
    many.reset(seed=7)
    whole, _ = one.reset(seed=7)
    rng = np.random.default_rng(0)
    side = many.task.side or many.possible_agents
    for _ in range(30):
        assert np.array_equal(many.state(), np.concatenate([whole[k][0] for k in many._vectors]))
        action = drawn(many, rng)
        obs, paid, *_, info = many.step(action)
        whole, reward, *_, said = one.step(np.concatenate(list(action.values()))[None])
        assert np.mean([paid[a] for a in side]) == pytest.approx(reward[0], abs=1e-12)
        for agent in many.possible_agents:
            assert many.observation_space(agent).contains(obs[agent])
            assert info[agent]["success"] == said["success"][0]
            assert info[agent]["instruction"] == said["instruction"][0]
            assert np.array_equal(obs[agent]["instruction"], whole["instruction"][0])


@EACH
def test_all_agents_end_together_and_the_scripts_are_each_agents_own(name):
    world = parallel_env(name)
    world.reset(seed=HELD_OUT)
    names, steps = list(world.possible_agents), round(world.task.time_limit / world.task.control_dt)
    for k in range(steps):
        assert world.agents == names
        *_, ends, stops, info = world.step(world.expert())
        assert set(ends.values()) == {False} and set(stops.values()) == {k == steps - 1}
    assert world.agents == [] and all(i["success"] for i in info.values())
    with pytest.raises(RuntimeError, match="call reset"):
        world.step({})
    world.reset()
    assert world.agents == names


@pytest.mark.parametrize("name", DRIVEN)
def test_what_one_side_wins_the_other_loses(name):
    world = parallel_env(name)
    world.reset(seed=1)
    side, seen = set(world.task.side), set()
    for _ in range(120):
        _, paid, *_ = world.step(world.expert())
        ours, theirs = ({paid[a] for a in world.agents if (a in side) == own} for own in (1, 0))
        assert len(ours) == len(theirs) == 1 and sum(ours | theirs) == pytest.approx(1)
        seen |= ours
    assert len(seen) > 50


@pytest.mark.parametrize("name", ("CarryTogether", "Handover"))
def test_who_works_together_is_paid_alike(name):
    world = parallel_env(name)
    world.reset(seed=1)
    for _ in range(30):
        paid = world.step(world.expert())[1]
        assert paid["left"] == paid["right"]


@pytest.mark.parametrize(
    "change, told",
    [
        ({"runner_0": np.full(2, np.nan)}, "agent 'runner_0' holds NaN"),
        ({"runner_1": np.zeros(3)}, r"agent 'runner_1' has shape \(2,\), got \(3,\)"),
        ({"runner_1": None}, "no action of agent 'runner_1'"),
        ({"runner_7": np.zeros(2)}, "no agent 'runner_7'"),
    ],
)
def test_wrong_actions_are_refused_by_name_before_anything_moves(change, told):
    world = parallel_env("tag")
    world.reset(seed=0)
    before = world.world.physics()
    actions = {a: np.zeros(2, np.float32) for a in world.agents} | change
    with pytest.raises(ValueError, match=told):
        world.step({a: v for a, v in actions.items() if v is not None})
    assert np.array_equal(world.world.physics(), before)


def test_names_are_mended_and_a_task_of_one_is_refused():
    with pytest.raises(registry.UnknownName, match="did you mean 'tag'"):
        parallel_env("tagg")
    with pytest.raises(ValueError, match="Reach has one agent"):
        parallel_env("reach")


SENSED = {  # what each agent carries; an arm's sites do not bear its agent's name
    "Handover": (), "Tag": ("chaser_0/imu", "runner_0/imu", "runner_1/imu")
}  # fmt: skip


def sensing(name):
    """A team whose agents have a sense each, and one that all share, paid for success alone."""
    mine = tuple(f"pose/{place}" for place in SENSED[name])
    return parallel_env(name, senses=("joints", "audio", *mine), reward="sparse")


@pytest.mark.parametrize("name", SENSED)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_pettingzoo_finds_no_fault_in_senses_and_sparse_rewards(name):
    parallel_api_test(sensing(name), num_cycles=30)
    parallel_seed_test(lambda: sensing(name), num_cycles=20)


@pytest.mark.parametrize("name", SENSED)
def test_a_seed_decides_two_hundred_steps_of_senses_too(name):
    one, two = (story(sensing(name), 5) for _ in range(2))
    assert alike(one, two)


@pytest.mark.parametrize("name", SENSED)
def test_each_agent_has_its_own_senses_and_all_have_those_of_nobody(name):
    world, plain = sensing(name), parallel_env(name)
    seen, bare = world.reset(seed=3)[0], plain.reset(seed=3)[0]
    for _ in range(3):
        assert np.array_equal(world.state(), plain.state())
        for k, agent in enumerate(world.agents):
            own = {f"pose/{place}" for place in SENSED[name][k : k + 1]}
            assert seen[agent].keys() == bare[agent].keys() | {"joints", "audio"} | own
            assert all(np.array_equal(seen[agent][key], bare[agent][key]) for key in bare[agent])
            assert np.array_equal(seen[agent]["joints"], seen[world.agents[0]]["joints"])
            for key in own:
                at = fleet.places(world.world.sim)[0, k]
                np.testing.assert_allclose(seen[agent][key][:2], at, atol=2e-3)
        still = {a: np.zeros(world.action_space(a).shape, np.float32) for a in world.agents}
        seen, bare = world.step(still)[0], plain.step(still)[0]


@pytest.mark.parametrize("name", ("CarryTogether", "Tag"))
def test_sparse_rewards_are_success_of_the_side_and_its_failure_of_the_others(name):
    world, dense = parallel_env(name, reward="sparse"), parallel_env(name)
    world.reset(seed=HELD_OUT), dense.reset(seed=HELD_OUT)
    side, paid = set(world.task.side or world.possible_agents), []
    while world.agents:
        action = world.expert()
        _, pay, _, _, info = world.step(action)
        dense.step(action)
        won = float(info[world.possible_agents[0]]["success"])
        assert pay == {a: won if a in side else 1 - won for a in world.possible_agents}
        paid.append(won)
        assert np.array_equal(world.state(), dense.state())
    assert paid[-1] == 1 and paid[0] == 0
    with pytest.raises(ValueError, match="no reward 'sparce'"):
        parallel_env(name, reward="sparce")


def test_noise_comes_to_each_agent_and_cameras_to_all():
    plain = parallel_env("tag", cameras=("yard",), size=(16, 16))
    noisy = parallel_env("tag", vary={"noise": (0.1, 0.1)})
    seen, blurred = plain.reset(seed=2)[0], noisy.reset(seed=2)[0]
    off = {a: blurred[a]["proprio"] - seen[a]["proprio"] for a in plain.agents}
    assert all(0.02 < np.abs(x).mean() < 0.3 for x in off.values())
    assert not np.allclose(off["runner_0"], off["runner_1"])
    pictures = [seen[a]["rgb/yard"] for a in plain.agents]
    assert all(np.array_equal(p, pictures[0]) for p in pictures) and pictures[0].std() > 5


def test_agents_hear_of_held_out_colours_and_of_the_truth():
    told = {}
    for split in ("train", "test_colours"):
        world = parallel_env("handover", split=split, labels=True)
        infos = [world.reset(seed=s)[1][world.agents[0]] for s in range(12)]
        told[split] = [any(c in i["instruction"] for c in HELD_COLOURS) for i in infos]
        assert all(i["label/subtask"] == 0 and i["label/pose"].ndim == 2 for i in infos)
    assert all(told["test_colours"]) and not any(told["train"])


# ---- tasks


@pytest.mark.parametrize("name", ("CarryTogether", *DRIVEN))
def test_another_word_in_the_same_scene_is_another_task(name):
    n = 16
    world = BatchEnv(name, n)
    _, info = world.reset(seed=HELD_OUT)
    asked = world.sim.userdata[:, 0].copy()
    world.sim.userdata[:, 0] = 1 - asked
    now = [world.task.instruction(world.sim, i) for i in range(n)]
    assert all(a != b for a, b in zip(info["instruction"], now, strict=True))
    for _ in range(round(world.task.time_limit / world.task.control_dt) - 1):
        world.step(world.expert())
    assert world.task.success(world.sim).mean() >= 0.9
    world.sim.userdata[:, 0] = asked
    assert not world.task.success(world.sim).any()


@pytest.mark.parametrize(
    "name, geoms",
    [
        ("CarryTogether", ("goal", "goal2")),
        ("PushBall2v2", ("goal", "goal2")),
        ("Tag", ("runner_0/chassis", "runner_1/chassis")),
    ],
)
def test_words_name_the_one_thing_that_looks_so(name, geoms):
    world = BatchEnv(name, 30)
    _, info = world.reset(seed=1)
    rgba = world.sim.model_field("geom_rgba")[:, [world.model.geom(g).id for g in geoms]]
    for i, text in enumerate(info["instruction"]):
        looks = [NAMES[int(np.abs(RGBA - c).max(1).argmin())] for c in rgba[i]]
        assert [k for k in (0, 1) if looks[k] in text] == [int(world.sim.userdata[i, 0])]


@pytest.mark.parametrize("able", [0, 1])
def test_one_arm_alone_gets_one_end_up_and_the_bar_nowhere(able):
    world = BatchEnv("CarryTogether", 12)
    world.reset(seed=HELD_OUT)
    task, sim, half = world.task, world.sim, len(world.action_spec) // 2
    rose = np.zeros(12)
    for _ in range(59):
        action = world.expert().reshape(12, 2, half)
        held = task.label(sim)["contact"][:, able]
        ahead = task._goals(sim)[:, able] - task._posts(sim)[:, able]
        alone = task.control.aim(sim, pair.tools(sim) + ahead[:, None], -np.ones((12, 2)), 0.6)
        action[held, able] = alone.reshape(12, 2, half)[held, able]
        action[:, 1 - able] = 0, 0, 0, 1
        world.step(action.reshape(12, -1))
        rose = np.maximum(rose, task._posts(sim)[:, able, 2])
        assert not task.success(sim).any()
    assert (rose > 0.07).mean() > 0.9  # it did lift its own end


def test_a_chaser_that_stands_tags_nobody_and_a_home_that_stands_scores_nothing():
    for name, idle in (("Tag", 2), ("PushBall2v2", 4)):
        world = BatchEnv(name, 12)
        world.reset(seed=HELD_OUT)
        for _ in range(round(world.task.time_limit / world.task.control_dt) - 1):
            action = world.expert()
            action[:, :idle] = 0
            world.step(action)
        assert world.task.success(world.sim).mean() <= 0.1


def test_rovers_meet_each_other_and_walls_and_a_bar_keeps_them_out_of_goals():
    world = BatchEnv("PushBall2v2", 1)
    world.reset(seed=0)
    sim = world.sim
    for k, (x, y, yaw) in enumerate(
        [(1.0, 0, 0), (-0.5, 0.5, 0), (0.3, 0.5, np.pi), (0, -0.9, -1.57)]
    ):
        fleet.put(sim, 0, k, (x, y), yaw)
    sim.joint("ball")[0, :2] = 1.35, 0.0
    for _ in range(60):
        world.step(np.tile([1.0, 0.0], (1, 4)))
    at = fleet.places(sim)[0]
    assert at[0, 0] < 1.65 and at[3, 1] > -1.2 + fleet.RIM - 0.02
    assert np.hypot(*(at[1] - at[2])) > 2 * fleet.RIM - 0.02
    assert sim.joint("ball")[0, 0] > 1.7  # while the ball rolls in


def test_each_rover_sees_the_others_where_they_are():
    world = BatchEnv("Tag", 6)
    world.reset(seed=4)
    sim = world.sim
    for _ in range(8):
        world.step(world.expert())
    at, face = fleet.places(sim), fleet.faces(sim)
    for agent, told in world.task.share(sim).items():
        k = world.task.agents.index(agent)
        rest = [j for j in range(3) if j != k]
        seen = told["others"].reshape(6, 2, 4)[..., :2]
        left = np.stack([-face[:, k, 1], face[:, k, 0]], 1)
        back = seen[..., :1] * face[:, k, None] + seen[..., 1:] * left[:, None]
        np.testing.assert_allclose(back + at[:, k, None], at[:, rest], atol=1e-9)
