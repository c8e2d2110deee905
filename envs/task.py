"""Task: what is asked of a body in a scene: physics, senses, reward, words. Holds no state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import reduce
from operator import mul
from typing import ClassVar

import mujoco
import numpy as np

from .. import registry
from ..robots import body as bodies
from ..robots.body import Body
from . import control as controls
from .audio import Speaker
from .control import Control
from .sim import Sim
from .splits import Grammar


class Task(ABC):
    """A stateless description; what varies within or between episodes lives in the state row.

    Goals are mocap bodies, choices are `userdata`, properties of objects are fields given to
    `sim.vary`. `reset` and `instruction` are cold (one row); all else is hot: batched array code
    over n rows, without a Python loop, pure in the simulation's state.
    """

    version: ClassVar[int] = 0
    control_dt: ClassVar[float]  # s between two actions
    time_limit: ClassVar[float]  # s of an episode
    robots: ClassVar[tuple[str, ...]] = ()  # arms that can do it, the first by default
    control: Control  # of the class; of the object where there are arms to choose from
    default_control: ClassVar[str] = "delta_position"  # where there are arms to choose from
    camera: ClassVar[str]  # what render() looks through
    named: ClassVar[tuple[str, ...]] = ()  # geoms of robots and rooms whose colours mean something
    subtasks: ClassVar[tuple[str, ...]] = ()  # names of label "subtask"'s values
    solved: ClassVar[float | None] = None  # return of an episode from which on it counts as solved
    good: ClassVar[float | None] = None  # reward from which on it is success, if that alone decides

    def __init__(
        self,
        robot: str | Body | None = None,
        control: str | None = None,
        split: str = "all",
    ):
        """Takes the arm (a name or a Body) and its control, where the task has a choice of them.

        split: the episodes' colours and phrases, of a task with words. Raises ValueError where
        the task has no such choice, UnknownName for a name that nothing has.
        """
        self.grammar = Grammar(split)
        if split != "all" and type(self).instruction is Task.instruction:
            raise ValueError(f"{type(self).__name__} has no words; it takes no split={split!r}")
        if self.robots:
            self.body = bodies.find(robot or self.robots[0])
            self.control = controls.make(
                control or self.default_control, self.body, self.control_dt
            )
        elif robot or control:
            raise ValueError(
                f"{type(self).__name__} has a body and a control of its own; it takes no robot= "
                f"or control=, got {robot!r} and {control!r}"
            )

    @abstractmethod
    def spec(self) -> mujoco.MjSpec:
        """Returns scene and body, ready to compile."""

    @abstractmethod
    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        """Draws the start of an episode for row i, whose state is the first keyframe's."""

    @abstractmethod
    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        """Returns `{key: (n, d)}`, SI units; cameras and the instruction are added by the env."""

    @abstractmethod
    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        """Returns what the reward is made of, `{name: (n,)}`: `pay` makes the reward of it."""

    @staticmethod
    def pay(**terms: np.ndarray) -> np.ndarray:
        """Returns the reward `(n,)` that terms make; unless the task says otherwise, their product.

        Numbers or truths: terms read from records are the former.
        """
        return reduce(mul, terms.values())

    def reward(self, sim: Sim) -> np.ndarray:
        """Returns `(n,)` in [0, 1]: what arriving in this state pays."""
        return self.pay(**self.terms(sim))

    def success(self, sim: Sim) -> np.ndarray:
        """Returns `(n,)` bool: what the instruction asks for holds now."""
        if self.good is None:
            raise NotImplementedError(f"{type(self).__name__} says neither `success` nor `good`")
        return self.reward(sim) >= self.good

    def judge(self, sim: Sim) -> tuple[np.ndarray, np.ndarray]:
        """Returns reward and success; a task that finds both on one way does so here."""
        reward = self.reward(sim)
        return reward, self.success(sim) if self.good is None else reward >= self.good

    def terminated(self, sim: Sim) -> np.ndarray:
        """Returns `(n,)` bool: the task itself ends the episode here."""
        return np.zeros(sim.n, bool)

    def instruction(self, sim: Sim, i: int) -> str:
        """Returns row i's instruction, at most 128 utf-8 bytes; empty for a task without words."""
        return ""

    def expert(self, sim: Sim) -> np.ndarray | None:
        """Returns a scripted demonstration's actions `(n, nu)`, or None if there is no script."""
        return None

    def speakers(self, sim: Sim) -> tuple[Speaker, ...]:
        """Returns what sounds by itself, for the sense `audio`: always as many, in one order."""
        return ()

    def label(self, sim: Sim) -> dict[str, np.ndarray]:
        """Returns ground truth `{key: (n, ...)}` for annotation (keys without the `label/`)."""
        return {}


def make_task(
    task: Task | str, robot: str | Body | None, control: str | None, split: str = "all"
) -> Task:
    """Returns the task called `task` with these choices, or `task` itself if it is one.

    Raises UnknownName for an unknown name and ValueError for a choice that the task does not have.
    """
    if isinstance(task, str):
        return registry.load("envs", task)(robot, control, split)
    if robot or control or split != "all":
        raise ValueError(
            "robot=, control= and split= go with a task's name; this Task has its own already"
        )
    return task
