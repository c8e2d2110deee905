"""Env: one row of a BatchEnv as a `gymnasium.Env`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from ..robots.body import Body
from .env import BatchEnv
from .rows import single
from .sense import Sense
from .snapshot import Snapshot
from .task import Task
from .vary import Ranges


class Env(gymnasium.Env):
    """One row of a task as a `gymnasium.Env`; the arguments, keys and infos are BatchEnv's.

    Values in infos are Python's (`success` is a bool). It never truncates by itself unless
    max_episode_steps is given: `gymnasium.make` adds the task's time limit.
    """

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 (Gymnasium's convention)

    def __init__(
        self,
        task: Task | str,
        *,
        robot: str | Body | None = None,
        control: str | None = None,
        split: str = "all",
        nthread: int = 1,
        cameras: tuple[str, ...] = (),
        senses: tuple[Sense | str, ...] = (),
        size: tuple[int, int] = (64, 64),
        reward: str = "dense",
        physics: bool = False,
        labels: bool = False,
        vary: Ranges | Sequence[str] = (),
        action_repeat: int = 1,
        max_episode_steps: int = -1,
        render_mode: str | None = None,
    ):
        self.batch = BatchEnv(
            task, 1, robot=robot, control=control, split=split, nthread=nthread, cameras=cameras,
            senses=senses, size=size, reward=reward, physics=physics, labels=labels, vary=vary,
            action_repeat=action_repeat, max_episode_steps=max_episode_steps,
            autoreset_mode=AutoresetMode.DISABLED, render_mode=render_mode,
        )  # fmt: skip
        self.metadata = {k: v for k, v in self.batch.metadata.items() if k != "autoreset_mode"}
        self.render_mode = render_mode
        self.observation_space = self.batch.single_observation_space
        self.action_space = self.batch.single_action_space
        self.action_spec = self.batch.action_spec
        self._dt = self.batch.task.control_dt

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        """Begins an episode: the seed's first, or without one the next of the seed last given."""
        super().reset(seed=seed)
        if seed is None and self.batch._seed[0] < 0:
            seed = int(self.np_random.integers(2**31))
        obs, success = self.batch.start(seed, self.batch._all)
        return _first(obs), self._info(success)

    def step(self, action: np.ndarray):
        """Advances by one action `(nu,)`; ValueError for a wrong shape or a number not finite."""
        action = np.asarray(action, np.float32)
        if action.shape != self.action_space.shape:
            raise ValueError(f"an action has shape {self.action_space.shape}, got {action.shape}")
        obs, reward, terminated, truncated, success = self.batch.advance(action[None])
        done = terminated.item(), truncated.item()
        return _first(obs), reward.item(), *done, self._info(success)

    def _info(self, success: np.ndarray) -> dict[str, Any]:
        """Returns BatchEnv's infos of the row, made without the arrays for rows."""
        batch = self.batch
        failed = batch._fault.item()
        won = success.item() and not failed
        info = {
            "success": won,
            "is_success": won,
            "instruction": batch._words.item(),
            "time": batch._age.item() * self._dt,
            "fault": "physics" if failed else "",
        }
        if asked := batch._asked():
            info |= {k: single(v) for k, v in asked.items()}
        return info

    def expert(self) -> np.ndarray:
        """Returns the task's scripted action `(nu,)` for the present state."""
        return self.batch.expert()[0]

    def save(self) -> Snapshot:
        """Returns the row as it is now (a TimeLimit wrapper's own counter is not in it)."""
        return self.batch.save()

    def load(self, snapshot: Snapshot) -> dict[str, np.ndarray]:
        """Puts the row where the Snapshot's is; returns the observation of then."""
        return _first(self.batch.load(snapshot))

    def render(self) -> np.ndarray | None:
        """Returns a picture uint8 (480, 480, 3), if render_mode is "rgb_array"."""
        frames = self.batch.render()
        return None if frames is None else frames[0]


def _first(obs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {k: v[0] for k, v in obs.items()}
