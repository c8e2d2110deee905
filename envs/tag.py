"""Tag: one rover chases two slower ones through a yard; the words say which of them counts."""

from __future__ import annotations

import math

import mujoco
import numpy as np

from . import drive, fleet, scene, yard
from .fleet import Fleet
from .language import NAMES, refer
from .sim import Sim
from .teams import Team

_PHRASES = ("tag {}", "catch {}", "chase {} and stay on its heels")
_HALF = 2.0  # m: half the yard
_TOUCH = 2 * fleet.RIM + 0.05  # m between the middles of two rovers that count as touching
_CLOSE = 0.9  # m
_LOOK = 0.8  # m that a runner looks ahead
_WAYS = np.stack([f(np.arange(16) * math.pi / 8) for f in (np.cos, np.sin)], 1)


class Tag(Team):
    """Touch the runner that the words name, at the end; the chaser is faster, the yard is small.

    The chaser is paid the more the nearer it is to the named runner, both runners what is left of
    1. `proprio` (n, 18): of the chaser and the runners, place (m), facing, speeds (m/s, rad/s).
    `objects` (n, 4): the named runner's place as the chaser sees it (m), the other's.
    """

    control_dt = 0.1
    time_limit = 20.0
    camera = "yard"
    subtasks = ("chase", "close in", "tagged")
    agents = ("chaser_0", "runner_0", "runner_1")
    side = ("chaser_0",)
    named = tuple(f"{agent}/chassis" for agent in agents)
    control = Fleet(agents, (0.5, 0.35, 0.35))

    def spec(self) -> mujoco.MjSpec:
        s = fleet.spec(self.agents)
        yard.enclose(s, memory=5, half=_HALF)
        return s

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        spots = scene.scatter(rng, 3, (-1.5, -1.5), (1.5, 1.5), apart=1.3)
        for k, spot in enumerate(spots):
            fleet.put(sim, i, k, spot, rng.uniform(-math.pi, math.pi))
        looks = rng.permutation(len(NAMES))[:2]
        which, phrase, form = rng.random(3).tolist()
        which = int(2 * which)
        looks = self.grammar.colours(rng, ("rover", "rover"), [which], drawn=looks)
        scene.paint(sim, i, tuple(f"{a}/chassis" for a in self.agents[1:]), looks)
        said = self.grammar.phrase(phrase, len(_PHRASES)), self.grammar.form(form)
        sim.userdata[i] = [which, *said, *looks]

    def instruction(self, sim: Sim, i: int) -> str:
        which, phrase, form, *looks = sim.userdata[i].astype(int)
        return _PHRASES[phrase].format(refer(which, [(NAMES[c], "rover") for c in looks], form))

    def _which(self, sim: Sim) -> np.ndarray:
        return sim.userdata[:, 0].astype(int)

    def _gap(self, sim: Sim) -> np.ndarray:
        """Returns how far the chaser is from the named runner `(n,)`, in m."""
        at = fleet.places(sim)
        return fleet.length(scene.pick(sim, at[:, 1:], self._which(sim)) - at[:, 0])

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        at = fleet.places(sim)
        ways = at[:, 1:][sim.rows[:, None], scene.order(self._which(sim), 2)] - at[:, :1]
        ways = np.repeat(ways[:, None], 3, 1)
        return {
            "proprio": fleet.proprio(sim).reshape(sim.n, -1),
            "objects": fleet.seen(sim, ways)[:, 0].reshape(sim.n, -1),
        }

    def share(self, sim: Sim) -> dict[str, dict[str, np.ndarray]]:
        """Returns of each its own `proprio` (n, 6), `others` (n, 8): their places (m) and
        velocities (m/s) as it sees them, and `named` (n, 2): 1 for the runner that counts."""
        own, rest = fleet.proprio(sim), fleet.others(sim)
        named = np.eye(2)[self._which(sim)]
        return {
            agent: {"proprio": own[:, k], "others": rest[:, k], "named": named}
            for k, agent in enumerate(self.agents)
        }

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        gap = self._gap(sim)
        return yard.terms(gap, gap < _TOUCH, span=2 * math.sqrt(2) * _HALF)

    pay = staticmethod(yard.pay)

    def payoff(self, sim: Sim) -> dict[str, np.ndarray]:
        caught = self.reward(sim)
        return {"chaser_0": caught, "runner_0": 1 - caught, "runner_1": 1 - caught}

    def success(self, sim: Sim) -> np.ndarray:
        return self._gap(sim) < _TOUCH

    def expert(self, sim: Sim) -> np.ndarray | None:
        """The chaser heads for the named runner, past the other one; both flee from it."""
        at, which = fleet.places(sim), self._which(sim)
        named, other = (scene.pick(sim, at[:, 1:], k) for k in (which, 1 - which))
        chase = drive.detour(at[:, 0], named, other[:, None], 0.45)
        # Of 16 ways, the one whose end is farthest from the chaser and not at the other runner.
        ends = np.clip(at[:, 1:, None] + _LOOK * _WAYS, 0.25 - _HALF, _HALF - 0.25)
        safe = fleet.length(ends - at[:, None, :1])
        safe = safe - np.maximum(0.7 - fleet.length(ends - at[:, 2:0:-1, None]), 0)
        flee = np.take_along_axis(ends, safe.argmax(2)[..., None, None], 2)
        goals = np.concatenate([chase[:, None], flee[:, :, 0]], 1)
        return self.control.go(sim, goals, through=True)

    def label(self, sim: Sim) -> dict[str, np.ndarray]:
        gap = self._gap(sim)
        stage = np.select([gap < _TOUCH, gap < _CLOSE], [2, 1], 0)
        return {"subtask": stage.astype(np.int32), "target": self._which(sim).astype(np.int32)}
