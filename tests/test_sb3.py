"""The adapter gives SB3 what SB3's own DummyVecEnv gives it over our Env, row by row."""

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3 as sb3
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecTransposeImage

import umwelten  # noqa: F401 (registers)
from umwelten.agents.sb3 import BatchVecEnv
from umwelten.envs.env import BatchEnv

SAME = AutoresetMode.SAME_STEP
TINY = {"net_arch": [4]}


def rows(task="Reach", n=3, keys=None, **options):
    return BatchVecEnv(BatchEnv(task, n, nthread=1, autoreset_mode=SAME, **options), keys)


def same(a, b):
    """Whether two values, or two dicts of values, are the same in every bit."""
    if isinstance(a, dict):
        return all(same(a[k], b[k]) for k in a)
    return np.array_equal(a, b) and np.asarray(a).dtype == np.asarray(b).dtype


def differences(ours, theirs, steps, seed=5):
    """Yields what differs when both are driven alike, from the same seeds."""
    ours.seed(seed), theirs.seed(seed)
    if not same(ours.reset(), theirs.reset()):
        yield "reset"
    rng = np.random.default_rng(0)
    for t in range(steps):
        actions = rng.uniform(-1, 1, (ours.num_envs, *ours.action_space.shape)).astype(np.float32)
        (obs, reward, done, infos), others = ours.step(actions), theirs.step(actions)
        answers = {"obs": obs, "reward": reward, "done": done}
        for name, other in zip(answers, others[:3], strict=True):
            if not same(answers[name], other):
                yield name, t
        for i, (info, other) in enumerate(zip(infos, others[3], strict=True)):
            if info.keys() != other.keys():
                yield t, i, info.keys() ^ other.keys()
            yield from ((t, i, k) for k in info if not same(info[k], other[k]))
        resets = zip(ours.reset_infos, theirs.reset_infos, strict=True)
        yield from ("reset_infos", t) if any(not same(a, b) for a, b in resets) else ()


def peer(name, n, **options):
    return DummyVecEnv([lambda: gym.make(f"umwelten/{name}-v0", **options) for _ in range(n)])


@pytest.mark.parametrize("task, options, steps", [
    ("Reach", {}, 105), ("Push", {"labels": True, "vary": ("mass",)}, 60),
    ("CartpoleSwingup", {"action_repeat": 50, "max_episode_steps": 300}, 14),
])  # fmt: skip
def test_rows_are_those_of_sb3s_own_vector_env(task, options, steps):
    theirs = dict(options)
    if "max_episode_steps" in theirs:  # Gymnasium counts calls, a batch control steps
        theirs["max_episode_steps"] //= theirs["action_repeat"]
    assert list(differences(rows(task, **options), peer(task, 3, **theirs), steps)) == []


def test_the_comparison_sees_a_late_reset_and_another_seed():
    class Late(BatchVecEnv):
        def step_wait(self):
            obs, reward, done, infos = super().step_wait()
            for i in np.flatnonzero(done):
                infos[i]["terminal_observation"] = {k: v[i] for k, v in obs.items()}
            return obs, reward, done, infos

    late = Late(BatchEnv("Reach", 2, nthread=1, autoreset_mode=SAME))
    found = list(differences(late, peer("Reach", 2), 50))
    assert found == [(49, 0, "terminal_observation"), (49, 1, "terminal_observation")]
    other = rows("Reach", 2)
    other.seed = lambda seed: BatchVecEnv.seed(other, seed + 1)
    assert list(differences(other, peer("Reach", 2), 1))


def test_what_the_task_ends_is_no_timeout_and_what_the_clock_ends_is():
    venv = rows("Reach", 3)
    venv.reset()
    task = venv.env.task
    task.terminated = lambda sim: np.arange(sim.n) == 1
    *_, done, infos = venv.step(np.zeros((3, 4), np.float32))
    assert done.tolist() == [False, True, False]
    assert [i["TimeLimit.truncated"] for i in infos] == [False] * 3
    task.terminated = lambda sim: (np.arange(sim.n) == 1) & (venv.env._age >= 50)
    for _ in range(49):
        *_, done, infos = venv.step(np.zeros((3, 4), np.float32))
    assert done.tolist() == [True, False, True]
    assert [i["TimeLimit.truncated"] for i in infos] == [True, False, True]
    *_, done, infos = venv.step(np.zeros((3, 4), np.float32))
    assert done.tolist() == [False, True, False]  # the task's end counts where both come at once
    assert [i["TimeLimit.truncated"] for i in infos] == [False] * 3


def test_vec_monitor_counts_episodes_as_they_are():
    venv, bare = VecMonitor(rows("Reach", 2)), rows("Reach", 2)
    venv.seed(1), bare.seed(1), venv.reset(), bare.reset()
    total = np.zeros(2)
    for _ in range(50):
        total += bare.step(np.ones((2, 4), np.float32))[1]
        *_, infos = venv.step(np.ones((2, 4), np.float32))
    assert [i["episode"]["l"] for i in infos] == [50, 50]
    assert np.allclose([i["episode"]["r"] for i in infos], total, atol=1e-4)


@pytest.mark.parametrize("algorithm", [sb3.PPO, sb3.SAC, sb3.TD3])
def test_sb3_learns_on_it_and_evaluates_it(algorithm):
    venv = VecMonitor(rows("Reach", 2, action_repeat=10))
    size = {"n_steps": 8} if algorithm is sb3.PPO else {"learning_starts": 8, "buffer_size": 100}
    model = algorithm(
        "MultiInputPolicy", venv, batch_size=8, policy_kwargs={**TINY}, seed=0, **size
    )
    before = {k: v.clone() for k, v in model.policy.state_dict().items()}
    model.learn(32)
    after = model.policy.state_dict()
    weights = [k for k in before if k.endswith("weight") and "target" not in k]
    assert weights and all((before[k] != after[k]).any() for k in weights)
    returns, lengths = evaluate_policy(model, venv, 2, return_episode_rewards=True)
    assert len(returns) == 2 and lengths == [5, 5]


def test_images_are_transposed_by_sb3_itself():
    venv = rows("Reach", 2, ["rgb/front", "proprio"], cameras=("front",), action_repeat=25)
    model = sb3.PPO("MultiInputPolicy", venv, n_steps=4, batch_size=4, policy_kwargs={**TINY})
    env = model.get_env()
    assert isinstance(env, VecTransposeImage)
    obs = env.reset()
    assert {k: v.shape for k, v in obs.items()} == {"rgb/front": (2, 3, 64, 64), "proprio": (2, 22)}
    for _ in range(2):
        *_, infos = env.step(np.zeros((2, 4), np.float32))
    assert infos[0]["terminal_observation"]["rgb/front"].shape == (3, 64, 64)
    assert (obs["rgb/front"].reshape(2, -1).std(1) > 10).all()


def test_attributes_and_methods_of_the_one_world():
    venv = rows("Reach", 3)
    venv.reset()
    assert venv.get_attr("num_envs", [0, 2]) == [3, 3] and venv.has_attr("task")
    assert not venv.has_attr("compute_reward")
    expert = venv.env_method("expert", indices=[2, 0])
    assert same(np.array(expert), venv.env.expert()[[2, 0]])
    venv.set_attr("note", 7)
    assert venv.env.note == 7
    assert venv.env_is_wrapped(gym.Wrapper) == [False] * 3
    assert list(venv.get_images()) == [None] * 3
    pictures = rows("Reach", 2, render_mode="rgb_array")
    pictures.reset()
    assert pictures.render().shape[2] == 3


@pytest.mark.parametrize("act, says", [
    (lambda: rows(keys=["objekts"]), "'objekts' is not observed; did you mean 'objects'"),
    (lambda: rows(keys=["instruction"]), "'instruction' is nothing that SB3 reads"),
    (lambda: rows(keys=["depth/front"], cameras=("front",)), "nothing that SB3 reads"),
    (lambda: rows(keys=["rgb/front"]), "'rgb/front' is not observed"),
    (lambda: rows(keys=[]), "no vector to learn from"),
    (lambda: BatchVecEnv(BatchEnv("Reach", 2)).reset(), "autoreset_mode=AutoresetMode.SAME_STEP"),
    (lambda: rows().set_attr("note", 7, [0]), "without indices"),
    (lambda: rows().env_method("fault_of"), "no attribute 'fault_of'"),
    (lambda: rows().env_method("close"), "no answer for each row"),
    (lambda: rows().env_method("expert", sim=3), "by position"),
])  # fmt: skip
def test_what_it_refuses(act, says):
    with pytest.raises((ValueError, AttributeError), match=says.replace("(", r"\(")):
        act()
