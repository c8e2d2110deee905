"""SB3: a batch of worlds as Stable-Baselines3's VecEnv; it knows no learner and no task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.vec_env import VecEnv

from ..registry import nearest


class BatchVecEnv(VecEnv):
    """A BatchEnv with autoreset_mode SAME_STEP as a VecEnv, without a loop over its rows' physics.

    Observations are a Dict for SB3's MultiInputPolicy, of the `keys` named: `(n, d)` float32
    vectors, `(n, r, d)` samples of senses, `(n, H, W, 3)` uint8 images (which SB3 transposes by
    itself); None names every float32 vector. Text cannot be named. Where a row is done, its
    observation is already its next episode's first; its info holds `terminal_observation`, and
    `TimeLimit.truncated` where the clock ended it, not the task. `seed(s)` gives row i the seed
    s + i at the next reset, as everywhere. All rows are one object: an attribute is the same for
    all of them, and `env_method` calls methods that answer for all rows (expert, words, physics).

    Raises ValueError for keys that are not observed or that SB3 has no input for.
    """

    def __init__(self, env, keys: Sequence[str] | None = None):
        self.env = env
        self.keys = choose_keys(env.single_observation_space, keys)
        space = Dict({k: env.single_observation_space[k] for k in self.keys})
        super().__init__(env.num_envs, space, env.single_action_space)

    def reset(self) -> dict[str, np.ndarray]:
        """Begins an episode in every row; ValueError if rows do not reset in the same step."""
        mode = self.env.metadata["autoreset_mode"]
        if mode is not AutoresetMode.SAME_STEP:
            raise ValueError(
                f"SB3 resets a row in the step that ends it, the world does {mode}; build it with "
                "autoreset_mode=AutoresetMode.SAME_STEP"
            )
        obs, info = self.env.reset(seed=self._seeds)
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = _by_row(info)
        return self._kept(obs)

    def step_async(self, actions: np.ndarray) -> None:
        """Keeps the actions `(n, nu)` for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, list[dict]]:
        """Returns observations, rewards `(n,)` float32, dones `(n,)` and an info for each row."""
        obs, reward, terminated, truncated, info = self.env.step(self._actions)
        done = terminated | truncated
        infos = _by_row(info)
        if done.any():
            ended = _by_row(info["final_info"])
            for i in np.flatnonzero(done).tolist():
                self.reset_infos[i], infos[i] = infos[i], ended[i]
                infos[i]["terminal_observation"] = self._kept(info["final_obs"][i])
        for row, late in zip(infos, (truncated & ~terminated).tolist(), strict=True):
            row["TimeLimit.truncated"] = late
        return self._kept(obs), reward.astype(np.float32), done, infos

    def _kept(self, obs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {k: obs[k] for k in self.keys}

    def close(self) -> None:
        """Closes the world."""
        self.env.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Returns a picture of each row, None where the world has no render_mode."""
        frames = self.env.render()
        return [None] * self.num_envs if frames is None else frames

    def get_attr(self, attr_name: str, indices=None) -> list[Any]:
        """Returns the world's attribute, once for each row asked for."""
        return [getattr(self.env, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices=None) -> None:
        """Sets the world's attribute; ValueError for some rows only, which share it."""
        if indices is not None:
            raise ValueError(f"rows share one world: set {attr_name!r} for all, without indices")
        setattr(self.env, attr_name, value)

    def env_method(self, method_name: str, *args, indices=None, **kwargs) -> list[Any]:
        """Returns each asked row's part of what the world's method answers for all rows.

        Raises ValueError if the answer has no row for each, and for arguments by name.
        """
        if kwargs:
            raise ValueError(f"give {method_name} its arguments by position, not {[*kwargs]}")
        answer = getattr(self.env, method_name)(*args)
        if not hasattr(answer, "__len__") or len(answer) != self.num_envs:
            raise ValueError(f"{method_name} has no answer for each row; call it on the world")
        return [answer[i] for i in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[gymnasium.Wrapper], indices=None) -> list[bool]:
        """Returns False for each row: there is no wrapper around one."""
        return [False for _ in self._get_indices(indices)]


def choose_keys(space: Dict, keys: Sequence[str] | None) -> tuple[str, ...]:
    """Returns the sorted keys that SB3's networks read; None means every float32 vector.

    Raises ValueError where there are none, and for keys that are unknown or of no such kind.
    """
    fit = [k for k, s in space.items() if _readable(k, s)]
    if keys is None:
        chosen = [k for k in fit if len(space[k].shape) == 1]
    else:
        chosen = sorted({keys} if isinstance(keys, str) else set(keys))
    for key in chosen:
        if key not in fit:
            why = "is nothing that SB3 reads" if key in space.spaces else "is not observed"
            raise ValueError(f"the key {key!r} {why}{nearest(key, fit)}")
    if not chosen:
        raise ValueError(
            f"no vector to learn from; name images or senses by keys{nearest('', fit)}"
        )
    return tuple(sorted(chosen))


def _readable(key: str, space: Box) -> bool:
    """Whether it is a vector, samples within a step or an image: not text, depth or geom ids."""
    if space.dtype == np.uint8:
        return len(space.shape) == 3
    return not key.startswith(("depth/", "segmentation/"))


def _by_row(info: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns a vector info as n infos, plain Python numbers where a row has one."""
    names = [k for k in info if k[0] != "_" and not k.startswith("final_")]
    plain = (bool, float, object)
    columns = [info[k].tolist() if info[k].dtype in plain else info[k] for k in names]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
