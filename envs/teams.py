"""Teams: worlds of several agents, as PettingZoo's ParallelEnv and, by its conversion, AECEnv.

A Team is a Task like any other, so the same world is also one of a single mind that moves all
agents. Knows no particular task.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pettingzoo
from gymnasium.spaces import Box, Dict
from gymnasium.vector import AutoresetMode
from pettingzoo.utils.conversions import parallel_to_aec

from .. import registry
from ..robots.body import Body
from .env import BatchEnv
from .rows import single
from .sense import Sense
from .sim import Sim
from .task import Task
from .vary import Ranges


class Team(Task, ABC):
    """A task of several agents: whose action is whose, what each senses, what each is paid.

    The world's action is the agents' actions one after the other, all of one length. Its reward is
    the mean of what `side` is paid. `share` and `payoff` are hot as `observe` is, and name no field
    of the simulation that `observe` and `reward` do not.
    """

    agents: ClassVar[tuple[str, ...]]
    side: ClassVar[tuple[str, ...]] = ()  # those whom the instruction speaks to; (): all

    @abstractmethod
    def share(self, sim: Sim) -> dict[str, dict[str, np.ndarray]]:
        """Returns what each agent senses, `{agent: {key: (n, d)}}`, SI units."""

    def payoff(self, sim: Sim) -> dict[str, np.ndarray]:
        """Returns what arriving here pays each agent, `{agent: (n,)}`; by default all the same."""
        reward = self.reward(sim)
        return dict.fromkeys(self.agents, reward)


class ParallelEnv(pettingzoo.ParallelEnv):
    """A Team's world in which every agent acts for itself, at the same time; all end together.

    An agent's observation is a Dict: its own vectors (float32), `instruction` (uint8 (128,), utf-8)
    if the task has words, and the cameras and senses asked for: what an agent carries
    (`rgb/<agent>/...`, `imu/<agent>/...`) is its own, all else is all agents'. `state()` is the
    world's vectors, as one mind would have them, one after another. Infos hold what Env's do.

    task: a Team or its registered name; robot, control, split, cameras, senses, size, vary: as
    BatchEnv's. reward: "dense", what `payoff` says, or "sparse": success, 0 or 1, of the side that
    the instruction speaks to, and what is left of 1 of the others. labels: the world's ground
    truth, `label/<key>`, in the infos of all agents.
    max_cycles: control steps of an episode, default the task's limit, -1 for none.
    Raises ValueError for a task that has no agents, UnknownName for a name that nothing has.
    """

    def __init__(
        self,
        task: Team | str,
        *,
        robot: str | Body | None = None,
        control: str | None = None,
        split: str = "all",
        cameras: tuple[str, ...] = (),
        senses: tuple[Sense | str, ...] = (),
        size: tuple[int, int] = (64, 64),
        reward: str = "dense",
        labels: bool = False,
        vary: Ranges | Sequence[str] = (),
        max_cycles: int | None = None,
        render_mode: str | None = None,
    ):
        self.world = BatchEnv(
            task, 1, robot=robot, control=control, split=split, nthread=1, cameras=cameras,
            senses=senses, size=size, reward=reward, labels=labels, vary=vary,
            max_episode_steps=max_cycles, autoreset_mode=AutoresetMode.DISABLED,
            render_mode=render_mode,
        )  # fmt: skip
        self.task = self.world.task
        if not isinstance(self.task, Team):
            raise ValueError(
                f"{type(self.task).__name__} has one agent; make it with gymnasium.make"
            )
        self.render_mode, self._sparse = render_mode, reward == "sparse"
        self.metadata = {
            "name": f"{registry.PACKAGE}_{type(self.task).__name__}_v{self.task.version}",
            "render_modes": self.world.metadata["render_modes"],
            "render_fps": self.world.metadata["render_fps"],
            "is_parallelizable": True,
        }
        self.possible_agents = list(self.task.agents)
        self.agents: list[str] = []
        whole = self.world.single_observation_space
        sensed = {sense.key for sense in self.world.senses.all}
        self._vectors = [
            k
            for k, s in whole.items()
            if s.dtype == np.float32 and len(s.shape) == 1 and k not in sensed
        ]
        rest = [k for k in whole if k not in self._vectors]
        carrier = {k: a for k in rest for a in self.possible_agents if f"/{a}/" in k}
        self._rest = {a: [k for k in rest if carrier.get(k, a) == a] for a in self.possible_agents}
        width = sum(whole[k].shape[0] for k in self._vectors)
        self.state_space = Box(-np.inf, np.inf, (width,), np.float32)
        self._sees, self._acts, self._own = {}, {}, {}
        each = self.world.single_action_space.shape[0] // len(self.possible_agents)
        for agent, own in self.task.share(self.world.sim).items():
            spaces = {k: Box(-np.inf, np.inf, v.shape[1:], np.float32) for k, v in own.items()}
            self._own[agent] = list(spaces)
            self._sees[agent] = Dict(spaces | {k: whole[k] for k in self._rest[agent]})
            self._acts[agent] = Box(-1.0, 1.0, (each,), np.float32)

    def observation_space(self, agent: str) -> Dict:
        """Returns the space of what the agent senses: the same object every time."""
        return self._sees[agent]

    def action_space(self, agent: str) -> Box:
        """Returns the space of the agent's actions, `(nu,)` in [-1, 1]: the same object each time.

        `world.action_spec` says what they mean, for the agents one after the other.
        """
        return self._acts[agent]

    def reset(self, seed: int | None = None, options: dict | None = None):
        """Begins an episode: the seed's first, or without one the next of the seed last given."""
        obs, info = self.world.reset(seed=seed)
        self.agents = list(self.possible_agents)
        return self._share(obs), self._infos(info)

    def step(self, actions: Mapping[str, np.ndarray]):
        """Advances the world by one action `(nu,)` of every agent.

        Raises ValueError, before anything moves, for actions that are missing, of a wrong shape or
        not finite, and for those of who is no agent; RuntimeError where no episode is under way.
        """
        if not self.agents:
            raise RuntimeError("no episode is under way; call reset() first")
        obs, _, terminated, truncated, info = self.world.step(self._joint(actions))
        fault, paid = info["fault"][0], self._payoff(info["success"])
        answer = (
            self._share(obs, bool(fault)),
            {agent: 0.0 if fault else float(paid[agent][0]) for agent in self.agents},
            dict.fromkeys(self.agents, bool(terminated[0])),
            dict.fromkeys(self.agents, bool(truncated[0])),
            self._infos(info),
        )
        if terminated[0] or truncated[0]:
            self.agents = []
        return answer

    def expert(self) -> dict[str, np.ndarray]:
        """Returns the task's scripted action of every agent, `(nu,)`, for the present state."""
        return dict(
            zip(self.agents, np.split(self.world.expert()[0], len(self.agents)), strict=True)
        )

    def state(self) -> np.ndarray:
        """Returns the vectors of the whole world, `(d,)` float32, fresh."""
        return np.concatenate([self.world._last[k][0] for k in self._vectors])

    def render(self) -> np.ndarray | None:
        """Returns a picture uint8 (480, 480, 3), if render_mode is "rgb_array"."""
        frames = self.world.render()
        return None if frames is None else frames[0]

    def close(self) -> None:
        """Releases the world; a second call does nothing."""
        self.world.close()

    def _joint(self, actions: Mapping[str, np.ndarray]) -> np.ndarray:
        if odd := sorted(set(actions) - set(self.agents)):
            raise ValueError(f"no agent {odd[0]!r}; there are {', '.join(self.agents)}")
        parts = []
        for agent in self.agents:
            if agent not in actions:
                raise ValueError(f"no action of agent {agent!r}; every agent acts in every step")
            part, shape = np.asarray(actions[agent], np.float32), self._acts[agent].shape
            if part.shape != shape:
                raise ValueError(
                    f"an action of agent {agent!r} has shape {shape}, got {part.shape}"
                )
            if not np.isfinite(part).all():
                raise ValueError(
                    f"the action of agent {agent!r} holds NaN or inf; it is in [-1, 1]"
                )
            parts.append(part)
        return np.concatenate(parts)[None]

    def _payoff(self, success: np.ndarray) -> dict[str, np.ndarray]:
        if not self._sparse:
            return self.task.payoff(self.world.sim)
        side = self.task.side or self.agents
        return {a: success if a in side else ~success for a in self.agents}

    def _share(self, obs: dict[str, np.ndarray], fault: bool = False):
        if not fault:  # else what they last sensed, as in BatchEnv
            shares = {
                f"{agent}/{key}": value.astype(np.float32)
                for agent, own in self.task.share(self.world.sim).items()
                for key, value in own.items()
            }
            self._seen = self.world.variation.noisy(shares, self.world._age)
        return {
            agent: {k: self._seen[f"{agent}/{k}"][0].copy() for k in self._own[agent]}
            | {k: obs[k][0].copy() for k in self._rest[agent]}
            for agent in self.agents
        }

    def _infos(self, info: dict[str, Any]) -> dict[str, dict[str, Any]]:
        own = {k: v for k, v in info.items() if not k.startswith("_")}
        return {agent: {k: single(v) for k, v in own.items()} for agent in self.agents}


def parallel_env(
    task: Team | str,
    *,
    robot: str | Body | None = None,
    control: str | None = None,
    split: str = "all",
    cameras: tuple[str, ...] = (),
    senses: tuple[Sense | str, ...] = (),
    size: tuple[int, int] = (64, 64),
    reward: str = "dense",
    labels: bool = False,
    vary: Ranges | Sequence[str] = (),
    max_cycles: int | None = None,
    render_mode: str | None = None,
) -> ParallelEnv:
    """Returns the world of a Team, by its registered name or itself, as a PettingZoo ParallelEnv.

    Arguments and errors are ParallelEnv's.
    """
    return ParallelEnv(
        task, robot=robot, control=control, split=split, cameras=cameras, senses=senses,
        size=size, reward=reward, labels=labels, vary=vary, max_cycles=max_cycles,
        render_mode=render_mode,
    )  # fmt: skip


def env(
    task: Team | str,
    *,
    robot: str | Body | None = None,
    control: str | None = None,
    split: str = "all",
    cameras: tuple[str, ...] = (),
    senses: tuple[Sense | str, ...] = (),
    size: tuple[int, int] = (64, 64),
    reward: str = "dense",
    labels: bool = False,
    vary: Ranges | Sequence[str] = (),
    max_cycles: int | None = None,
    render_mode: str | None = None,
) -> pettingzoo.AECEnv:
    """Returns the same world with its agents acting in turn, by PettingZoo's own conversion.

    Nothing moves until all have acted. Arguments and errors are ParallelEnv's.
    """
    return parallel_to_aec(
        ParallelEnv(
            task, robot=robot, control=control, split=split, cameras=cameras, senses=senses,
            size=size, reward=reward, labels=labels, vary=vary, max_cycles=max_cycles,
            render_mode=render_mode,
        )
    )  # fmt: skip
