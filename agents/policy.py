"""Policy: steps in, actions out; what it remembers is a value that the caller carries."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

Carry = dict[str, np.ndarray]


class Policy(ABC):
    """Maps a step (n rows) to actions `(n, nu)` in [-1, 1]; never changes while it acts."""

    @abstractmethod
    def start(self, seeds: np.ndarray) -> Carry:
        """Returns the carry of len(seeds) rows; row i draws from a stream that seeds[i] names."""

    @abstractmethod
    def act(self, step: dict[str, np.ndarray], carry: Carry) -> tuple[np.ndarray, Carry]:
        """Returns the actions `(n, nu)` float32 for the step and the carry to pass next time.

        Rows where `step["first"]` is True begin an episode: nothing of the carry but the random
        stream may reach their actions.
        """
