"""SimulatorModel: the simulator itself as a WorldModel, so that planners can be held to the truth.

It receives a batch of simulations and knows neither its task nor its engine.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor

from .contract import ContractError
from .model import Belief, WorldModel


class Branching(Protocol):
    """What the model asks of a batch of simulations; a BatchEnv answers."""

    num_envs: int
    single_action_space: Box

    def physics(self) -> np.ndarray:
        """Returns whole rows, `(num_envs, nphysics)` float64."""

    def branch(
        self, physics: np.ndarray, action: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns next physics, reward `(m,)`, terminated `(m,)` for m <= num_envs rows."""

    def look(self, physics: np.ndarray) -> dict[str, np.ndarray]:
        """Returns what is observed there, `{key: (m, ...)}`, for m <= num_envs rows."""


class SimulatorModel(WorldModel):
    """The truth: a belief is a row of physics, and to imagine is to simulate.

    Reward and end are the task's own. The model spends `env`: its rows are overwritten, so it must
    not be the batch that is being acted in. Build it alike (task, action_repeat), but with
    `max_episode_steps=-1`, for the clock is no end of the world. Any number of beliefs is imagined,
    `env.num_envs` at a time. Steps must carry `physics` `(n, nphysics)` float64: build the env that
    is acted in with `physics=True`. There is nothing to learn and no value beyond the plan.
    """

    def __init__(self, env: Branching, discount: float = 0.99):
        """Raises ValueError for a discount (of one imagined action) outside (0, 1]."""
        if not 0 < discount <= 1:
            raise ValueError(f"discount {discount} is outside (0, 1]; 0.99 looks 100 steps ahead")
        super().__init__()
        self.env = env
        self.discount = discount
        self.nu = env.single_action_space.shape[0]
        width = env.physics().shape[1]
        self.observation = {"physics": Box(-np.inf, np.inf, (width,), np.float64)}
        self.device = torch.device("cpu")

    def start(self, n: int) -> Belief:
        """Returns n rows of zeros: no physics is known before the first step."""
        width = self.observation["physics"].shape[0]
        return {"physics": torch.zeros(n, width, dtype=torch.float64)}

    def observe(self, belief: Belief, action: Tensor, step: dict[str, Tensor], rng) -> Belief:
        """Returns the step's own physics."""
        if "physics" not in step:
            raise ContractError("the step has no 'physics'; build its env with physics=True")
        self.io_contract().check_step(step, action)
        return {"physics": step["physics"]}

    def imagine(self, belief: Belief, action: Tensor, rng) -> tuple[Belief, Tensor, Tensor]:
        """Returns the next physics, the reward of arriving there, and 1 or, at an end, 0."""
        rows, moves = belief["physics"].numpy(), action.numpy()
        after = np.empty_like(rows)
        reward, ended = np.empty(len(rows)), np.empty(len(rows), bool)
        for i in range(0, len(rows), self.env.num_envs):
            part = slice(i, i + self.env.num_envs)
            after[part], reward[part], ended[part] = self.env.branch(rows[part], moves[part])
        alive = torch.from_numpy(~ended).float()
        return {"physics": torch.from_numpy(after)}, torch.from_numpy(reward).float(), alive

    def decode(self, belief: Belief) -> dict[str, Tensor]:
        """Returns the physics itself, `physics`, and what the task observes there."""
        rows, n = belief["physics"].numpy(), self.env.num_envs
        parts = [self.env.look(rows[i : i + n]) for i in range(0, len(rows), n)]
        seen = {k: torch.from_numpy(np.concatenate([p[k] for p in parts])) for k in parts[0]}
        return seen | {"physics": belief["physics"]}

    def update(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns no metrics: the truth has nothing to learn."""
        return {}
