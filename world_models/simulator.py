"""SimulatorModel: the simulator itself as a WorldModel, so that planners can be held to the truth.

It receives a batch of simulations and knows neither its task nor its engine.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor

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


class SimulatorModel(WorldModel):
    """The truth: a belief is a row of physics, and to imagine is to simulate.

    Reward and end are the task's own. The model spends `env`: its rows are overwritten, so it must
    not be the batch that is being acted in. Any number of beliefs is imagined, `env.num_envs` at a
    time. Steps must carry `physics` `(n, nphysics)` float64, i.e. come from an env that was built
    with `physics=True`. There is nothing to learn and no value beyond the plan.
    """

    def __init__(self, env: Branching, discount: float = 0.99, repeat: int = 1):
        """Holds every imagined action for `repeat` control steps and sums their rewards.

        Raises ValueError for a discount outside (0, 1] or a repeat below 1.
        """
        if not 0 < discount <= 1:
            raise ValueError(f"discount {discount} is outside (0, 1]; 0.99 looks 100 steps ahead")
        if repeat < 1:
            raise ValueError(f"repeat {repeat} is below 1; 1 acts at every control step")
        super().__init__()
        self.env = env
        self.repeat = repeat
        self.discount = discount
        self.nu = env.single_action_space.shape[0]
        self.device = torch.device("cpu")

    def start(self, n: int) -> Belief:
        """Returns n rows of zeros: no physics is known before the first step."""
        return {"physics": torch.zeros(n, self.env.physics().shape[1], dtype=torch.float64)}

    def observe(self, belief: Belief, action: Tensor, step: dict[str, Tensor], rng) -> Belief:
        """Returns the step's own physics; raises ValueError if the step carries none."""
        if "physics" not in step:
            raise ValueError("the step has no 'physics'; build its env with physics=True")
        return {"physics": step["physics"]}

    def imagine(self, belief: Belief, action: Tensor, rng) -> tuple[Belief, Tensor, Tensor]:
        """Returns the next physics, the reward of arriving there, and 1 or, at an end, 0."""
        rows, moves = belief["physics"].numpy(), action.numpy()
        after = np.empty_like(rows)
        reward, ended = np.empty(len(rows)), np.empty(len(rows), bool)
        for i in range(0, len(rows), self.env.num_envs):
            part = slice(i, i + self.env.num_envs)
            after[part], reward[part], ended[part] = self._hold(rows[part], moves[part])
        alive = torch.from_numpy(~ended).float()
        return {"physics": torch.from_numpy(after)}, torch.from_numpy(reward).float(), alive

    def _hold(
        self, physics: np.ndarray, action: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        physics, total, ended = self.env.branch(physics, action)
        for _ in range(self.repeat - 1):
            physics, reward, end = self.env.branch(physics, action)
            total, ended = total + np.where(ended, 0.0, reward), ended | end
        return physics, total, ended

    def update(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns no metrics: the truth has nothing to learn."""
        return {}
