"""The batched world: Gymnasium's contract, Gymnasium's own vectoriser, the same bits everywhere."""

import hashlib
import json
import multiprocessing
import pickle

import gymnasium as gym
import mujoco
import numpy as np
import pytest
import stable_baselines3.common.env_checker
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

import umwelten  # noqa: F401 (registers)
from umwelten import registry
from umwelten.envs.env import BatchEnv
from umwelten.envs.language import decode
from umwelten.envs.single import Env

IDS = [registry.gym_id(m) for m in registry.members("envs").values()]
NAMES = list(registry.members("envs"))


def actions(env, steps, seed=0):
    """Actions that depend on the step and the row alone: row i has the same at any n."""
    nu, n = env.single_action_space.shape[0], env.num_envs
    rows = [np.random.default_rng([seed, i]).uniform(-1, 1, (steps, nu)) for i in range(n)]
    return np.stack(rows, 1).astype(np.float32)


def equal(a, b, path=""):
    """Deep, bitwise equality of observations and infos, with the path of what differs."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            equal(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, tuple) or (isinstance(a, np.ndarray) and a.dtype == object):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            equal(x, y, f"{path}[{i}]")
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype and a.shape == b.shape, path
        assert a.tobytes() == b.tobytes(), path
    else:
        assert type(a) is type(b) and a == b, path


@pytest.mark.parametrize("name", IDS)
@pytest.mark.filterwarnings("ignore:.*(infinity|Box observation).*")
def test_gymnasium_and_sb3_accept_every_id(name):
    env = gym.make(name, render_mode="rgb_array")
    check_env(env.unwrapped)
    stable_baselines3.common.env_checker.check_env(gym.make(name))


@pytest.mark.parametrize("name", IDS)
def test_specs_survive_json_and_pickle(name):
    spec = gym.spec(name)
    assert EnvSpec.from_json(spec.to_json()) == spec == pickle.loads(pickle.dumps(spec))
    assert json.loads(spec.to_json())["max_episode_steps"] > 0


def test_an_id_is_found_through_its_module():
    assert gym.make("umwelten:umwelten/Reach-v0").spec.id == "umwelten/Reach-v0"


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("name", NAMES)
def test_equals_sync_vector_env_bit_for_bit(name, mode):
    n, limit, options = 3, 6, {"labels": True, "physics": True}
    ours = BatchEnv(name, n, max_episode_steps=limit, autoreset_mode=mode, **options)
    gym_id = registry.gym_id(registry.find("envs", name))
    make = [
        lambda: gym.make(gym_id, max_episode_steps=limit, disable_env_checker=True, **options)
    ] * n
    theirs = SyncVectorEnv(make, autoreset_mode=mode)
    equal(*(env.reset(seed=11) for env in (ours, theirs)))
    acts = actions(ours, 15)
    for t in range(15):
        a, b = ours.step(acts[t]), theirs.step(acts[t])
        for i, what in enumerate(("observation", "reward", "terminated", "truncated", "info")):
            equal(a[i], b[i], f"{what} at {t}")
        if mode is AutoresetMode.DISABLED and (done := a[2] | a[3]).any():
            equal(*(e.reset(options={"reset_mask": done.copy()}) for e in (ours, theirs)))


def test_disabled_mode_resets_the_rows_it_is_told_to():
    env = BatchEnv("Reach", 4, autoreset_mode="Disabled", max_episode_steps=5)
    env.reset(seed=0)
    for _ in range(3):
        before = env.step(actions(env, 1)[0])[0]
    mask = np.array([True, False, False, True])
    obs, info = env.reset(options={"reset_mask": mask})
    assert info["time"].tolist() == [0, 0, 0, 0] and info["_time"].tolist() == mask.tolist()
    for key, value in obs.items():
        assert np.array_equal(value[1:3], before[key][1:3])
        assert key == "instruction" or not np.array_equal(value[0], before[key][0])
    for _ in range(2):
        env.step(actions(env, 1)[0])
    with pytest.raises(RuntimeError, match=r"rows \[1, 2\] have ended"):
        env.step(actions(env, 1)[0])
    for bad in (np.array([1, 0, 0, 0]), np.zeros(4, bool), np.ones(3, bool)):
        with pytest.raises(ValueError, match="reset_mask"):
            env.reset(options={"reset_mask": bad})


def digest(name, n, nthread, seeds, steps=200, row=0):
    """A hash over everything that row `row` shows for `steps` steps."""
    env = BatchEnv(name, n, nthread=nthread, max_episode_steps=60, physics=True, labels=True)
    acts = np.random.default_rng(3).uniform(-1, 1, (steps, len(env.action_spec)))
    acts = np.repeat(acts[:, None], n, 1).astype(np.float32)
    h = hashlib.sha256()
    out = env.reset(seed=seeds)
    for t in range(steps):
        parts = [out[0], *out[1:-1], out[-1]]
        for part in parts:
            for value in part.values() if isinstance(part, dict) else [part]:
                h.update(
                    repr(value[row]).encode() if value.dtype == object else value[row].tobytes()
                )
        out = env.step(acts[t])
    return h.hexdigest()


def _digest_in_child(queue, *arguments):
    queue.put(digest(*arguments))


@pytest.mark.parametrize("name", ["Reach", "PickPlace", "CartpoleSwingup"])
def test_a_row_is_the_same_at_any_n_thread_count_place_and_process(name):
    alone = digest(name, 1, 1, [7])
    assert digest(name, 4, 2, [7, 1, 2, 3]) == alone
    assert digest(name, 5, 3, [4, 5, 6, 7, 8], row=3) == alone
    assert digest(name, 1, 1, [8]) != alone
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=_digest_in_child, args=(queue, name, 2, 2, [7, 9]))
    child.start()
    assert queue.get(timeout=60) == alone
    child.join()


def test_seeds_go_on_from_episode_to_episode():
    a, b = BatchEnv("Reach", 2), BatchEnv("Reach", 1)
    a.reset(seed=4)
    second = a.reset()[0]["objects"]
    b.reset(seed=5)
    assert np.array_equal(b.reset()[0]["objects"][0], second[1])
    third = a.reset()[0]["objects"]
    assert not np.array_equal(third, second)
    a.reset(seed=[None, 5])
    assert np.array_equal(a.reset()[0]["objects"][1], second[1])
    for bad in (-1, [1], [1, -2]):
        with pytest.raises(ValueError, match="seed is an int"):
            a.reset(seed=bad)
    unseeded = [BatchEnv("Reach", 1).reset()[0]["objects"] for _ in range(2)]
    assert not np.array_equal(*unseeded)


@pytest.mark.parametrize("name", NAMES)
def test_a_snapshot_goes_on_exactly_in_another_world_and_at_another_n(name):
    env = BatchEnv(name, 3, max_episode_steps=40, physics=True)
    env.reset(seed=1)
    acts = actions(env, 80)
    for t in range(20):
        env.step(acts[t])
    snapshot = pickle.loads(pickle.dumps(env.save()))
    truth = [env.step(acts[t]) for t in range(20, 70)]
    other = BatchEnv(name, 3, max_episode_steps=40, physics=True)
    other.reset(seed=99)
    equal(other.load(snapshot), {k[5:]: v for k, v in snapshot.arrays.items() if k[:5] == "last/"})
    for t in range(20, 70):
        for a, b in zip(truth[t - 20], other.step(acts[t]), strict=True):
            equal(a, b, str(t))
    one = BatchEnv(name, 1, max_episode_steps=40, physics=True)
    one.load(snapshot.rows([2]))
    for t in range(20, 70):
        obs, reward, *_ = one.step(acts[t][2:])
        assert reward[0] == truth[t - 20][1][2]
        equal({k: v[0] for k, v in obs.items()}, {k: v[2] for k, v in truth[t - 20][0].items()})


def test_forks_of_one_snapshot_agree_until_their_actions_differ():
    env = Env("PickPlace")
    env.reset(seed=0)
    start = env.save()
    ways = []
    for push in (0.5, 0.5, -0.5):
        env.load(start)
        ways.append([env.step(np.full(4, push, np.float32))[0]["proprio"] for _ in range(5)])
    assert np.array_equal(ways[0], ways[1]) and not np.array_equal(ways[0], ways[2])


def test_a_snapshot_of_another_model_or_size_is_refused():
    reach, push = BatchEnv("Reach", 2), BatchEnv("Push", 2)
    reach.reset(seed=0)
    push.reset(seed=0)
    with pytest.raises(ValueError, match="of another model"):
        push.load(reach.save())
    with pytest.raises(ValueError, match="has 2 rows, this world 1"):
        BatchEnv("Reach", 1).load(reach.save())


@pytest.mark.parametrize("name", ["PickPlace", "CartpoleBalance"])
def test_a_branch_is_what_a_step_would_have_been(name):
    env, mind = BatchEnv(name, 2), BatchEnv(name, 4, max_episode_steps=-1)
    env.reset(seed=5)
    acts = actions(env, 10)
    for t in range(10):
        physics, reward, _ = mind.branch(env.physics(), acts[t])
        _, real, *_ = env.step(acts[t])
        assert np.array_equal(reward, real) and np.array_equal(physics, env.physics())


@pytest.mark.parametrize("where", ["qpos", "qvel"])
def test_a_diverged_row_ends_and_the_others_do_not_notice(where):
    env, calm = (BatchEnv("PickPlace", 3, physics=True) for _ in range(2))
    obs, _ = env.reset(seed=0)
    calm.reset(seed=0)
    acts = actions(env, 6)
    for t in range(6):
        if t == 2:
            before = {k: v[1].copy() for k, v in obs.items()}
            getattr(env.sim, where)[1, 0] = np.nan if where == "qpos" else 1e12
        obs, reward, terminated, truncated, info = env.step(acts[t])
        truth = calm.step(acts[t])
        if t == 2:
            assert terminated.tolist() == [False, True, False] and not truncated.any()
            assert reward[1] == 0 and info["fault"].tolist() == ["", "physics", ""]
            assert not info["success"][1]
            equal({k: v[1] for k, v in obs.items()}, before)
        if t == 3:  # begun anew, by the row's own next episode
            assert info["fault"].tolist() == ["", "", ""] and info["time"][1] == 0
        for i in (0, 2):
            equal({k: v[i] for k, v in obs.items()}, {k: v[i] for k, v in truth[0].items()})
            assert reward[i] == truth[1][i]
        assert all(np.isfinite(v).all() for v in obs.values()) and np.isfinite(reward).all()


def test_bad_actions_are_refused_before_anything_moves_and_large_ones_clipped():
    env = BatchEnv("Reach", 2)
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(np.zeros((2, 4)))
    env.reset(seed=0)
    before = env.physics()
    for bad in (np.full((2, 4), np.nan), np.full((2, 4), np.inf)):
        with pytest.raises(ValueError, match=r"rows \[0, 1\]"):
            env.step(bad)
    for bad in (np.zeros(4), np.zeros((2, 3)), np.zeros((3, 4))):
        with pytest.raises(ValueError, match=r"shape \(2, 4\)"):
            env.step(bad)
    assert np.array_equal(env.physics(), before)
    other = BatchEnv("Reach", 2)
    other.reset(seed=0)
    equal(env.step(np.full((2, 4), 50.0))[0], other.step(np.ones((2, 4)))[0])
    with pytest.raises(ValueError, match=r"shape \(4,\)"):
        Env("Reach").step(np.zeros(3))


def test_wrong_arguments_say_what_is_allowed():
    with pytest.raises(LookupError, match="did you mean 'Reach'"):
        BatchEnv("Reech")
    with pytest.raises(ValueError, match="dense, sparse"):
        BatchEnv("Reach", reward="shaped")
    with pytest.raises(ValueError, match="rgb_array"):
        BatchEnv("Reach", render_mode="human")
    with pytest.raises(ValueError, match="at least 1"):
        BatchEnv("Reach", 0)
    with pytest.raises(ValueError, match="front"):
        BatchEnv("Reach", cameras=("frnt",))


def test_sparse_reward_is_success_and_repeats_are_summed():
    sparse, dense = (BatchEnv("Reach", 8, reward=r) for r in ("sparse", "dense"))
    sparse.reset(seed=0)
    dense.reset(seed=0)
    for _ in range(12):
        action = dense.expert()
        reward, info = sparse.step(action)[1], dense.step(action)[4]
        assert np.array_equal(reward, info["success"].astype(float))
    assert reward.sum() == 8
    twice, once = BatchEnv("CartpoleBalance", 2, action_repeat=2), BatchEnv("CartpoleBalance", 2)
    for env in (twice, once):
        env.reset(seed=0)
    acts = actions(once, 500)
    for t in range(500):
        total = twice.step(acts[t])
        parts = [once.step(acts[t]) for _ in range(2)]
        assert np.array_equal(total[1], parts[0][1] + parts[1][1])
        equal(total[0], parts[1][0])
    assert total[3].all() and parts[1][3].all() and total[4]["time"][0] == 10


def test_observations_stay_inside_their_spaces_with_cameras_and_are_fresh():
    env = BatchEnv("Push", 2, cameras=("front", "wrist"), size=(24, 32), labels=True)
    obs, _ = env.reset(seed=0)
    kinds = {"rgb": ((24, 32, 3), np.uint8), "depth": ((24, 32), np.float32)}
    kinds["segmentation"] = ((24, 32), np.int32)
    for camera in ("front", "wrist"):
        for kind, (shape, dtype) in kinds.items():
            value = obs[f"{kind}/{camera}"]
            assert value.shape == (2, *shape) and value.dtype == dtype
    for action in actions(env, 130):
        last, (obs, _, _, _, info) = obs, env.step(action)
        assert obs in env.observation_space
        assert not any(np.shares_memory(obs[k], last[k]) for k in obs)
    assert info["label/contact"].shape == (2, 2) and info["label/subtask"].dtype == np.int32


def test_images_after_a_reset_within_a_step_are_of_the_new_episode():
    env = BatchEnv("Reach", 2, cameras=("front",), autoreset_mode="SameStep", max_episode_steps=2)
    env.reset(seed=0)
    env.step(actions(env, 1)[0])
    obs, *_, info = env.step(actions(env, 1)[0])
    fresh = BatchEnv("Reach", 2, cameras=("front",))
    fresh.reset(seed=0)
    equal(obs, fresh.reset()[0])
    assert not np.array_equal(info["final_obs"][0]["rgb/front"], obs["rgb/front"][0])


def test_a_video_can_be_recorded(tmp_path):
    env = gym.make("umwelten/Reach-v0", render_mode="rgb_array")
    env = gym.wrappers.RecordVideo(env, str(tmp_path), disable_logger=True)
    env.reset(seed=0)
    for _ in range(3):
        env.step(env.action_space.sample())
    env.close()
    assert [p.suffix for p in tmp_path.iterdir()] == [".mp4"]
    assert env.metadata["render_fps"] == 10


def test_no_log_file_is_left_by_a_divergence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = BatchEnv("Reach", 1)
    env.reset(seed=0)
    env.sim.qpos[0, 0] = np.nan
    env.step(np.zeros((1, 4)))
    assert list(tmp_path.iterdir()) == []


def test_a_field_named_too_late_is_refused():
    env = BatchEnv("Reach", 1)
    with pytest.raises(RuntimeError, match="'cvel' is named for the first time"):
        env.sim.cvel  # noqa: B018
    with pytest.raises(AttributeError, match="did you mean 'qpos'"):
        env.sim.qpoz  # noqa: B018


def test_the_control_period_is_made_of_whole_physics_steps():
    env = BatchEnv("Reach", 1)
    with pytest.raises(ValueError, match=r"0.012 s is not a multiple of the timestep 0.005 s"):
        env.sim.substeps(0.012)
    assert mujoco.mjVERSION_HEADER >= 3017000


@pytest.mark.parametrize("name", ["PickPlace", "CartpoleSwingup"])
def test_a_pickled_world_goes_on_exactly_and_apart(name):
    options = (
        {"labels": True} if name == "CartpoleSwingup" else {"robot": "panda", "vary": ("mass",)}
    )
    env = BatchEnv(name, 2, cameras=("front",) if name == "PickPlace" else (), **options)
    empty = pickle.loads(pickle.dumps(env))
    equal(empty.reset(seed=3), env.reset(seed=3))
    acts = actions(env, 12)
    for t in range(6):
        env.step(acts[t])
    other = pickle.loads(pickle.dumps(env))
    for t in range(6, 12):
        for a, b in zip(env.step(acts[t]), other.step(acts[t]), strict=True):
            equal(a, b, str(t))
    single = pickle.loads(pickle.dumps(gym.make(registry.gym_id(registry.find("envs", name)))))
    assert single.reset(seed=0)[1]["time"] == 0


def test_words_survive_processes_and_shared_memory():
    make = [lambda: gym.make("umwelten:umwelten/PickPlace-v0")] * 2
    worlds = [SyncVectorEnv(make), AsyncVectorEnv(make, context="spawn", shared_memory=True)]
    seen = []
    for world in worlds:
        obs, info = world.reset(seed=4)
        texts = [decode(codes) for codes in obs["instruction"]]
        assert texts == list(info["instruction"]) and all(texts)
        obs, *_ = world.step(np.zeros(world.action_space.shape, np.float32))
        assert [decode(codes) for codes in obs["instruction"]] == texts
        seen.append(texts)
        world.close()
    assert seen[0] == seen[1] and seen[0][0] != seen[0][1]


def test_two_worlds_that_draw_do_not_disturb_each_other():
    def pictures(*names):
        worlds = [BatchEnv(n, 1, cameras=("front",), render_mode="rgb_array") for n in names]
        for world in worlds:
            world.reset(seed=0)
        drawn = []
        for world in worlds * 2:
            obs, *_ = world.step(np.zeros(world.action_space.shape, np.float32))
            drawn.append((obs["rgb/front"].copy(), world.render()[0]))
        return drawn

    both, alone = pictures("Reach", "Push"), pictures("Reach")
    for (a, b), (c, d) in zip(both[::2], alone, strict=True):
        assert np.array_equal(a, c) and np.array_equal(b, d)
    assert not np.array_equal(both[0][0], both[1][0])


@pytest.mark.parametrize("name", ["CheetahRun", "PickPlace"])
def test_rows_that_keep_an_mjdata_go_on_as_those_that_share_one(name):
    few = BatchEnv(name, 2, max_episode_steps=6, nthread=1, physics=True)
    many = BatchEnv(name, 65, max_episode_steps=6, nthread=2, physics=True)
    assert few.sim.batch.persistent and not many.sim.batch.persistent
    few.reset(seed=3)
    many.reset(seed=3)
    rng = np.random.default_rng(0)
    for _ in range(9):  # over an end of episodes
        actions = rng.uniform(-1, 1, many.action_space.shape)
        a, b = few.step(actions[:2]), many.step(actions)
        assert np.array_equal(a[4]["physics"], b[4]["physics"][:2])
        assert all(np.array_equal(a[0][k], b[0][k][:2]) for k in a[0])
