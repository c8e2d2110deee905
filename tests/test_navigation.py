"""Navigation: words decide where to go, ways lead past what is in the way, mazes can be solved."""

import mujoco
import numpy as np
import pytest

from umwelten.agents.policy import Expert, Random
from umwelten.envs import drive, maze
from umwelten.envs.env import BatchEnv
from umwelten.envs.language import NAMES, RGBA
from umwelten.envs.splits import SPLITS, split_of
from umwelten.rollout import rollout
from umwelten.score import HELD_OUT

GOALS = {
    "PointGoal": ("disc", "disc2"),
    "ObjectGoal": ("ball", "cube", "cylinder"),
    "Maze": ("disc", "disc2"),
}
N = 40


def run(env, policy):
    """The steps of one episode of each row, as `{key: (t, n, ...)}`."""
    steps = list(rollout(env, policy, HELD_OUT, episodes_per_row=1))
    return {k: np.stack([s[k] for s in steps]) for k in steps[0] if k != "instruction"}


@pytest.mark.parametrize("name", GOALS)
def test_the_expert_arrives_and_stays_and_rewards_say_so(name):
    env = BatchEnv(name, N, labels=True)
    episode = run(env, Expert(env))
    success, reward = episode["label/success"], episode["reward"]
    assert success[-1].mean() >= 0.95
    assert reward.min() >= 0 and (reward[1:][success[1:]] == 1).all()
    assert reward[1:][~success[1:]].max() < 0.96
    stage = episode["label/subtask"]
    assert np.array_equal(stage == 2, success) and (stage[0] == 0).all()
    assert set(np.unique(stage)) == {0, 1, 2}


@pytest.mark.parametrize("name", GOALS)
def test_chance_does_not_arrive(name):
    env = BatchEnv(name, N, labels=True)
    episode = run(env, Random(2))
    assert episode["label/success"][-1].mean() <= 0.10 and episode["label/subtask"].max() < 2


@pytest.mark.parametrize("name", GOALS)
def test_another_word_in_the_same_scene_leads_elsewhere(name):
    n = 16
    env = BatchEnv(name, n)
    _, info = env.reset(seed=HELD_OUT)
    asked = env.sim.userdata[:, 0].copy()
    other = (asked + 1) % len(GOALS[name])
    before = env.task.observe(env.sim)["objects"].copy()
    env.sim.userdata[:, 0] = other
    now = [env.task.instruction(env.sim, i) for i in range(n)]
    assert all(a != b for a, b in zip(info["instruction"], now, strict=True))
    assert (env.task.observe(env.sim)["objects"] != before).any(1).all()
    for _ in range(round(env.task.time_limit / env.task.control_dt) - 1):
        env.step(env.expert())
    assert env.task.success(env.sim).mean() >= 0.9
    env.sim.userdata[:, 0] = asked
    assert not env.task.success(env.sim).any()
    assert env.task.reward(env.sim).max() < 0.96


@pytest.mark.parametrize("name", GOALS)
def test_words_name_the_one_thing_that_looks_so(name):
    env = BatchEnv(name, 60)
    _, info = env.reset(seed=1)
    geoms = [env.model.geom(g).id for g in GOALS[name]]
    rgba = env.sim.model_field("geom_rgba")[:, geoms]
    for i, text in enumerate(info["instruction"]):
        fits = []
        for k, goal in enumerate(GOALS[name]):
            colour = NAMES[int(np.abs(RGBA - rgba[i, k]).max(1).argmin())]
            noun = "disc" if goal.startswith("disc") else goal
            words = (f"the {colour} {noun}", f"the {colour} one", f"the {noun}")
            fits += [k] * any(text.endswith(w) for w in words)
        assert fits == [int(env.sim.userdata[i, 0])], text


@pytest.mark.parametrize("split", SPLITS[1:])
@pytest.mark.parametrize("name", GOALS)
def test_episodes_are_of_the_split_asked_for(name, split):
    env = BatchEnv(name, 40, split=split)
    env.reset(seed=0)
    nouns = ["disc" if goal.startswith("disc") else goal for goal in GOALS[name]]
    for which, phrase, form, *rest in env.sim.userdata.astype(int).tolist():
        things = [(NAMES[c], noun) for c, noun in zip(rest, nouns, strict=False)]
        assert split_of(things, [which], phrase, form) == split


@pytest.mark.parametrize("name", GOALS)
def test_scenes_begin_at_rest_with_room_around(name):
    env = BatchEnv(name, 30)
    env.reset(seed=HELD_OUT)
    sim = env.sim
    for i in range(10):
        data = sim.batch.get_data(i)
        mujoco.mj_forward(sim.batch.get_model(i), data)
        assert (
            data.contact.dist.min(initial=0) > -1e-3 and data.ncon <= 3
        )  # its wheels and a caster
    before = sim.qpos.copy()
    for _ in range(5):
        env.step(np.zeros((30, 2)))
    assert np.abs(sim.qpos - before).max() < 1e-3


@pytest.mark.parametrize("name", GOALS)
def test_a_row_is_the_same_alone_and_among_others(name):
    many, one = BatchEnv(name, 5), BatchEnv(name, 1)
    many.reset(seed=[3, 1, 4, 15, 9])
    one.reset(seed=15)
    for _ in range(20):
        a, b = many.step(many.expert())[:2], one.step(one.expert())[:2]
        assert all(np.array_equal(a[0][k][3], b[0][k][0]) for k in b[0]) and a[1][3] == b[1][0]


# ---- ways


def test_a_detour_never_comes_near_a_block_and_arrives():
    rng, n, clear = np.random.default_rng(0), 200, 0.4
    spots = np.empty((n, 9, 2))
    for i in range(n):
        kept = []
        while len(kept) < 9:
            p = rng.uniform(-1.6, 1.6, 2)
            kept += [p] if all(np.linalg.norm(p - q) >= 0.9 for q in kept) else []
        spots[i] = kept
    at, goal, blocks = spots[:, 0].copy(), spots[:, 1], spots[:, 2:]
    nearest = np.inf
    for _ in range(400):
        way = drive.detour(at, goal, blocks, clear) - at
        far = np.linalg.norm(way, axis=1, keepdims=True)
        at += way * np.minimum(0.03 / np.maximum(far, 1e-9), 1)
        nearest = min(nearest, np.linalg.norm(blocks - at[:, None], axis=2).min())
    assert np.linalg.norm(at - goal, axis=1).max() < 1e-6
    assert nearest > clear - 0.01
    straight = spots[:, :1] + np.linspace(0, 1, 50)[None, :, None] * (goal - spots[:, 0])[:, None]
    crossed = np.linalg.norm(straight[:, :, None] - blocks[:, None], axis=3).min((1, 2)) < clear
    assert crossed.mean() > 0.3  # negative control: straight on, they would have been hit


def test_the_expert_touches_no_stone():
    env = BatchEnv("PointGoal", 20)
    env.reset(seed=5)
    for _ in range(120):
        env.step(env.expert())
        gap = np.linalg.norm(env.sim.mocap_pos[:, 2:6, :2] - env.sim.qpos[:, None, :2], axis=2)
        assert gap.min() > 0.12 + 0.175


# ---- mazes


def distances(closed):
    """All cells' distances by Floyd and Warshall, independent of `maze.hops`."""
    cells = maze.SIDE**2
    d = np.full((cells, cells), np.inf)
    np.fill_diagonal(d, 0)
    for (a, b), wall in zip(maze.EDGES, closed, strict=True):
        if not wall:
            d[a, b] = d[b, a] = 1
    for k in range(cells):
        d = np.minimum(d, d[:, k : k + 1] + d[k])
    return d


def test_every_maze_can_be_solved_and_its_ways_are_the_shortest():
    layouts = set()
    for seed in range(50):
        rng = np.random.default_rng(seed)
        closed = maze.draw(rng)
        start, *goals = maze.ends(rng, closed)
        truth = distances(closed)
        assert closed.sum() == maze.WALLS and np.isfinite(truth).all()
        assert len({start, *goals}) == 3 and min(truth[start, g] for g in goals) >= 4
        for goal in goals:
            assert np.array_equal(maze.hops(closed, goal), truth[goal])
        layouts.add(closed.tobytes())
    assert len(layouts) == 50
    closed = np.ones(len(maze.EDGES), bool)  # negative control: all walls, no way
    assert np.isinf(distances(closed)).any() and (maze.hops(closed, 0) < 0).any()


def test_there_is_more_than_one_way():
    """`LOOPS` walls fewer than a tree has: so many can be closed and all stays within reach."""
    closed = maze.draw(np.random.default_rng(0))
    opened = np.flatnonzero(~closed)
    spare = 0
    for k in opened:
        more = closed.copy()
        more[k] = True
        spare += np.isfinite(distances(more)).all()
    assert spare >= maze.LOOPS and len(opened) == maze.SIDE**2 - 1 + maze.LOOPS


def test_walls_stand_where_the_state_says():
    env = BatchEnv("Maze", 8)
    obs, _ = env.reset(seed=2)
    for i in range(8):
        data = env.sim.batch.get_data(i)
        mujoco.mj_forward(env.model, data)
        for k, (a, b) in enumerate(maze.EDGES):
            p, q = (np.append(maze.middle(c), 0.2) for c in (a, b))
            hit = np.zeros(1, np.int32)
            far = mujoco.mj_ray(env.model, data, p, q - p, None, 1, env.model.body("base").id, hit)
            blocked = 0 <= far <= 1 and env.model.geom(int(hit[0])).name.startswith("wall")
            assert blocked == bool(obs["walls"][i, k])


def test_what_is_left_to_go_is_the_way_and_falls_all_along_it():
    env = BatchEnv("Maze", 10)
    env.reset(seed=4)
    sim, task = env.sim, env.task
    for i in range(10):
        closed = sim.userdata[i, 5 : 5 + len(maze.EDGES)].astype(bool)
        start, goal = (
            next(c for c in range(25) if np.allclose(maze.middle(c), p, atol=1e-9))
            for p in (sim.qpos[i, :2], sim.mocap_pos[i, int(sim.userdata[i, 0]), :2])
        )
        left = task.left(sim)[i]
        assert left == pytest.approx(distances(closed)[start, goal] * maze.CELL, abs=1e-9)
    before = task.left(sim).copy()
    for _ in range(449):
        env.step(env.expert())
        now = task.left(sim).copy()
        assert (now < before + 0.03).all()  # it turns on the spot, not quite on the middle
        before = now
    assert before.max() < 0.2


def test_a_wall_is_not_driven_through():
    env = BatchEnv("Maze", 1)
    env.reset(seed=0)
    sim = env.sim
    wall = sim.mocap_pos[0, 2].copy()
    sim.mocap_quat[0, 2] = 1, 0, 0, 0
    drive.put(sim, 0, wall[:2] - (0.35, 0), 0.0)
    sim.mocap_pos[0, 3:, :2] += 20
    for _ in range(30):
        env.step(np.array([[1.0, 0.0]]))
    assert sim.qpos[0, 0] < wall[0] - 0.15
