"""Sweep: push all small cubes of one colour, and no others, into the zone that the words name."""

from __future__ import annotations

import mujoco
import numpy as np

from . import scene, vessels
from .carry import HOVER, things
from .language import NAMES
from .rewards import tolerance
from .sim import Sim
from .task import Task

_CUBES = ("cube", "cube2", "cube3", "cube4", "cube5", "cube6")  # three of each colour
_ZONES = ("zone", "zone2")
_HALF = 0.012  # m: half size of a cube
_WIDE = (0.17, 0.05)  # m: half of a zone
_COLOUR, _ZONE = 0, 1  # in userdata; then phrase, colours of cubes and of zones
_LOW = 0.018  # m: the tool's height as it sweeps
_BEHIND = 0.05  # m from a cube to where the tool comes down behind it


class Sweep(Task):
    """Push the three cubes of the named colour into the named zone; the others stay out of it.

    `objects` (n, 102): of the named cubes, then of the others, place, place seen from the tool (m),
    two axes, velocity (m/s) and the way to the zone's middle (2; m).
    """

    control_dt = 0.1
    time_limit = 14.0
    robots = scene.ARMS
    camera = "front"
    subtasks = ("first", "second", "third", "done")
    phrases = (
        "sweep the {} cubes into the {} zone",
        "push all {} cubes into the {} zone",
        "gather the {} cubes in the {} zone",
    )

    def spec(self) -> mujoco.MjSpec:
        s = scene.tabletop(self.body, memory=7)
        for name in _ZONES:
            vessels.add_zone(s, name, _WIDE)
        for name in _CUBES:
            scene.add_object(s, name, "cube", _HALF, mass=0.03)
        return scene.finish(s, self.body)

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        lane, looks = rng.permutation(6).tolist(), rng.permutation(len(NAMES))[:4].tolist()
        x, y, yaw, (*choices, left, ahead, _) = rng.random((4, 6)).tolist()
        for k in range(6):
            spot = 0.275 + 0.05 * lane[k] + 0.004 * (x[k] - 0.5), 0.12 * y[k] - 0.06
            scene.place(sim, i, k, spot, 0.8 * yaw[k] - 0.4)
        side = 0.2 if left < 0.5 else -0.2
        sim.mocap_pos[i, 1:3, 0] = 0.395 + 0.01 * ahead
        sim.mocap_pos[i, 1:3, 1] = side, -side
        colour, zone = int(2 * choices[0]), int(2 * choices[1])
        shapes = ("cube", "cube", "zone", "zone")
        looks = self.grammar.colours(rng, shapes, [colour, 2 + zone], drawn=looks, distinct=True)
        scene.paint(sim, i, _CUBES, [looks[k // 3] for k in range(6)])
        scene.paint(sim, i, _ZONES, looks[2:])
        phrase = self.grammar.phrase(choices[2], len(self.phrases))
        sim.userdata[i] = [colour, zone, phrase, *looks]

    def instruction(self, sim: Sim, i: int) -> str:
        colour, zone, phrase, *looks = sim.userdata[i].astype(int)
        return self.phrases[phrase].format(NAMES[looks[colour]], NAMES[looks[2 + zone]])

    def _named(self, sim: Sim) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the named cubes' and the others' places `(n, 6, 3)`, the zone's `(n, 1, 3)`, and
        which cube comes when `(n, 6)`."""
        colour, zone = sim.userdata[:, :2].astype(int).T
        order = (np.arange(6) + 3 * colour[:, None]) % 6
        places = scene.objects(sim)[0][sim.rows[:, None], order]
        return places, scene.pick(sim, sim.mocap_pos[:, 1:3], zone)[:, None], order

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        places, zone, order = self._named(sim)
        seen = things(sim)[sim.rows[:, None], order]
        seen = np.concatenate([seen, (zone - places)[..., :2]], 2)
        return {"proprio": scene.proprio(sim, self.body), "objects": seen.reshape(sim.n, -1)}

    def _judge(self, sim: Sim):
        places, zone, order = self._named(sim)
        inside = vessels.within(places, zone, _WIDE, 2 * _HALF)
        return places, zone, order, inside, inside[:, :3].all(1) & ~inside[:, 3:].any(1)

    def _next(self, sim: Sim, places, zone) -> tuple[np.ndarray, np.ndarray]:
        """Returns which named cube to push now `(n,)`, and whether there is one left `(n,)`."""
        left = np.abs(places[:, :3] - zone)[..., 1] > _WIDE[1] - 0.02
        away = np.abs(places[:, :3] - sim.site("tcp")[:, None])
        cost = away[..., 0] + 0.1 * away[..., 1] + 9.0 * ~left
        return np.argmin(cost, 1), left.any(1)

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        """`near`: the tool is at the next cube; `share`: how far the cubes are; `clean`: no other
        thing is in the zone."""
        places, zone, _, inside, done = self._judge(sim)
        turn, _ = self._next(sim, places, zone)
        gap = np.maximum(np.abs(places[:, :3] - zone)[..., 1] - _WIDE[1], 0)
        there = tolerance(gap, margin=0.1, shape="long_tail")
        return {
            "near": scene.nearness(sim, scene.pick(sim, places, turn), high=0.04),
            "share": np.where(inside[:, :3], 1.0, 0.8 * there).mean(1),
            "clean": ~inside[:, 3:].any(1),
            "done": done,
        }

    @staticmethod
    def pay(near, share, clean, done) -> np.ndarray:
        return np.where(done, 1.0, (0.15 * near + 0.8 * share) * clean)

    def success(self, sim: Sim) -> np.ndarray:
        return self._judge(sim)[-1]

    def expert(self, sim: Sim) -> np.ndarray | None:
        """Pushes one cube after another straight to the side, from behind, with closed fingers."""
        places, zone, *_ = self._judge(sim)
        turn, left = self._next(sim, places, zone)
        thing, tip = scene.pick(sim, places, turn), sim.site("tcp").copy()
        aside = scene.jaws(sim)
        tip[:, :2] += aside
        side = np.sign(zone[:, 0, 1] - thing[:, 1])
        x, y = thing[:, 0], thing[:, 1]
        depth = side * (tip[:, 1] - y)
        start = y - side * _BEHIND
        aligned, low = np.abs(tip[:, 0] - x) < 0.009, tip[:, 2] < _LOW + 0.012
        slack = 1 - self.body.pace  # of an arm that jumps where it is told to go
        over = np.hypot(tip[:, 0] - x, tip[:, 1] - start) < 0.012 + 0.025 * slack
        case = [
            ~left,
            low & aligned & (depth < -0.015),
            over,
            tip[:, 2] < 0.06,
        ]
        near = 0.008 + 0.02 * slack
        # A cube that drifts aside, towards the zone's edge, is taken along inwards.
        out = x - zone[:, 0, 0]
        at = x - np.sign(out) * np.clip(np.abs(out) - 0.135, 0, 0.006)
        floor = _LOW + 0.015 * slack
        goal = np.empty((sim.n, 3))
        goal[:, 0] = np.select(case, [tip[:, 0], at, at, tip[:, 0]], x)
        goal[:, 1] = np.select(case, [tip[:, 1], y - side * near, start, tip[:, 1]], start)
        goal[:, 2] = np.select(case, [HOVER, floor, floor, 0.08], 0.08)
        goal[:, :2] -= aside
        return self.control.aim(sim, goal, jaws=-1.0, speed=0.6)

    def label(self, sim: Sim) -> dict[str, np.ndarray]:
        places, zone, order, inside, done = self._judge(sim)
        turn = order[sim.rows, self._next(sim, places, zone)[0]]
        count = np.minimum(inside[:, :3].sum(1), 2)
        return {
            "subtask": np.where(done, 3, count).astype(np.int32),
            "target": turn.astype(np.int32),
            "contact": scene.pick(sim, scene.touched(sim), turn),
        }
