"""Handover: the left arm passes the named bar to the right one, which lays it down."""

from __future__ import annotations

import math

import mujoco
import numpy as np

from ..robots.body import Body
from . import pair, scene
from .language import NAMES, refer
from .rewards import distance, tolerance
from .sim import Sim
from .teams import Team

_BARS, _DISCS = ("bar", "bar2"), ("disc", "disc2")
_PHRASES = (
    "hand {} over and put it on {}",
    "pass {} across and lay it on {}",
    "give {} to the right arm, which sets it down on {}",
)
_LONG, _HALF = 0.09, 0.011  # m: half the length of a bar, across the table, half its thickness
_GRIP = 0.055  # m from its middle that each arm holds its own end
_MEET = np.array([0.38, 0.0, 0.16])  # m: where it changes hands
_WAIT = np.array([[0.38, 0.22, 0.26], [0.38, -0.22, 0.26]])  # m: where an arm is out of the way
_HOVER = 0.12  # m
_BAR, _DISC = 0, 1  # in userdata; then phrase, form of words, colours of bars and discs


class Handover(Team):
    """Two bars lie where only the left arm gets, two discs where only the right one does.

    `proprio` (n, 2 p): the left arm's, the right arm's. `objects` (n, 45): the named bar's place
    (m), two axes and velocity (m/s), the other's; the named disc's place, the other's, the named
    disc seen from the bar; then the bars seen from the left tool (6) and from the right one (6).
    """

    control_dt = 0.1
    time_limit = 15.0
    robots = ("arm", "ur5e", "ur10e", "panda", "fr3")  # an SO-101 lets the bar droop
    camera = "front"
    subtasks = ("approach", "carry", "pass", "place", "done")
    agents = ("left", "right")

    def __init__(
        self,
        robot: str | Body | None = None,
        control: str | None = None,
        split: str = "all",
    ):
        super().__init__(robot, control, split)
        self.control = pair.Both(control or "delta_position", self.body, self.control_dt)

    def spec(self) -> mujoco.MjSpec:
        s = pair.tabletop(self.body, memory=8)
        for disc in _DISCS:
            scene.add_disc(s, disc, 0.05)
        for bar in _BARS:
            scene.add_object(s, bar, "cube", (_LONG, _HALF, _HALF), mass=0.04)
        for bar in _BARS:
            scene.add_touch(s, bar, pair.ARMS[1])
        return scene.finish(s, self.body, arms=2)

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        along, across, yaw, choices = rng.random((4, 4)).tolist()
        for k in range(2):
            x = [0.38 + (0.06 + 0.07 * u) * (1 - 2 * k) for u in (across[k], across[2 + k])]
            turn = math.pi / 2 + 0.3 * yaw[k] - 0.15
            scene.place(sim, i, k, (x[0], 0.17 + 0.06 * along[k]), turn)
            sim.mocap_pos[i, 2 + k, :2] = x[1], -0.23 + 0.06 * along[2 + k]
        looks = [c for _ in range(2) for c in rng.permutation(len(NAMES))[:2].tolist()]
        bar, disc = int(2 * choices[0]), int(2 * choices[1])
        shapes = ("bar", "bar", "disc", "disc")
        looks = self.grammar.colours(rng, shapes, [bar, 2 + disc], drawn=looks)
        scene.paint(sim, i, (*_BARS, *_DISCS), looks)
        said = self.grammar.phrase(choices[2], len(_PHRASES)), int(2 * choices[3])
        sim.userdata[i] = [bar, disc, *said, *looks]

    def instruction(self, sim: Sim, i: int) -> str:
        bar, disc, phrase, form, *looks = sim.userdata[i].astype(int)
        thing = refer(bar, [(NAMES[c], "bar") for c in looks[:2]], form)
        spot = refer(disc, [(NAMES[c], "disc") for c in looks[2:]], form=0)
        return _PHRASES[phrase].format(thing, spot)

    def _judge(self, sim: Sim):
        """Returns the named bar's place (n, 3) and long axis (n, 3), the named disc's place, the
        fingers on the bar (n, 2 arms, 2), how far aside of the disc it is (n,; m), whether it lies
        there and whether it is let go there."""
        which = sim.userdata[:, _BAR].astype(int)
        places, axes, _ = scene.objects(sim)
        bar, axis = scene.pick(sim, places, which), scene.pick(sim, axes, which)[:, :3]
        axis = axis * np.where(axis[:, 1:2] < 0, -1.0, 1.0)
        disc = scene.pick(sim, sim.mocap_pos[:, 2:4], sim.userdata[:, _DISC].astype(int))
        touch = scene.pick(sim, pair.touched(sim), which)
        aside = distance(bar[:, :2], disc[:, :2])
        down = (aside < 0.03) & (bar[:, 2] < _HALF + 0.006)
        return bar, axis, disc, touch, aside, down, down & ~touch.any((1, 2))

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        places, axes, speeds = scene.objects(sim)
        bar, disc = (sim.userdata[:, k].astype(int) for k in (_BAR, _DISC))
        rows, n = sim.rows[:, None], sim.n
        bars = np.concatenate([places, axes, speeds], 2)[rows, scene.order(bar, 2)]
        discs = sim.mocap_pos[:, 2:4][rows, scene.order(disc, 2)]
        seen = bars[:, None, :, :3] - pair.tools(sim)[:, :, None]
        flat = [bars, discs, discs[:, 0] - bars[:, 0, :3], seen]
        return {
            "proprio": pair.proprio(sim, self.body),
            "objects": np.concatenate([x.reshape(n, -1) for x in flat], 1),
        }

    def share(self, sim: Sim) -> dict[str, dict[str, np.ndarray]]:
        """Returns of each arm its own `proprio` (n, p); `others` (n, 3): the other's tool as its
        own sees it, m; `objects` (n, 39): what is in the world's, the bars seen from its tool."""
        whole, tips = self.observe(sim), pair.tools(sim)
        own, things = np.split(whole["proprio"], 2, 1), whole["objects"]
        seen = things[:, 33:39], things[:, 39:]
        return {
            agent: {
                "proprio": own[k],
                "others": tips[:, 1 - k] - tips[:, k],
                "objects": np.concatenate([things[:, :33], seen[k]], 1),
            }
            for k, agent in enumerate(self.agents)
        }

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        """`near`: the arm whose turn it is is at the bar; `there`: the bar is at the disc; `held`:
        by one arm at least; `handed`: by the right one."""
        bar, axis, _, touch, aside, _, done = self._judge(sim)
        tips, held = pair.tools(sim), touch.all(2)
        gaps = [distance(tips[:, k], bar + (1 - 2 * k) * _GRIP * axis) for k in range(2)]
        gap = np.where(bar[:, 1] > 0.03, gaps[0], gaps[1])
        return {
            "near": tolerance(gap, high=0.02, margin=0.3, shape="long_tail"),
            "there": tolerance(aside, high=0.02, margin=0.6, shape="long_tail"),
            "held": held.any(1),
            "lifted": bar[:, 2] > 0.04,
            "handed": held[:, 1],
            "done": done,
        }

    @staticmethod
    def pay(near, there, held, lifted, handed, done) -> np.ndarray:
        carried = held * (0.1 + 0.1 * lifted + 0.4 * there)
        return np.where(done, 1.0, 0.15 * near + carried + 0.15 * handed)

    def success(self, sim: Sim) -> np.ndarray:
        return self._judge(sim)[-1]

    def expert(self, sim: Sim) -> np.ndarray | None:
        """Left brings the bar to the middle and holds it; right takes it, left lets go and leaves
        upwards, right carries and lowers it."""
        bar, axis, disc, touch, aside, down, _ = self._judge(sim)
        tips, held = pair.tools(sim), touch.all(2)
        down |= (aside < 0.02) & (tips[:, 1, 2] < 0.021) & (bar[:, 2] < 0.03)  # as low as it gets
        ends = np.stack([bar + _GRIP * axis, bar - _GRIP * axis], 1)
        up = bar[:, 2] > _MEET[2] - 0.03
        offered = held[:, 0] & up & (distance(bar[:, :2], _MEET[:2]) < 0.02)
        lying = ~held.any(1) & (bar[:, 2] < 0.04)
        alone = ~touch[:, 0].any(1) & (
            (tips[:, 0, 2] > bar[:, 2] + 0.045) | (tips[:, 0, 1] - bar[:, 1] > 0.16)
        )
        left = self._take(sim, 0, ends, lying & (bar[:, 1] > 0) & ~down)
        right = self._take(sim, 1, ends, (offered | (lying & (bar[:, 1] <= 0))) & ~down)
        bring = np.where(up[:, None], tips[:, 0] + _MEET - bar, tips[:, 0])
        bring[:, 2] = tips[:, 0, 2] + _MEET[2] - bar[:, 2]
        own = held[:, 0] & ~held[:, 1] & (bar[:, 1] > -0.08)
        left = [np.where(own[:, None], bring, left[0]), np.where(own, -1.0, left[1])]
        lay = tips[:, 1] + disc - bar
        lower = np.maximum(_HALF - bar[:, 2], -0.02)
        lay[:, 2] = tips[:, 1, 2] + np.where(aside < 0.012, lower, _HOVER - bar[:, 2])
        lay = np.where(alone[:, None], lay, tips[:, 1])
        lay[:, 2] = np.where(alone, lay[:, 2], tips[:, 1, 2])
        own = held[:, 1] & ~down
        right = [np.where(own[:, None], lay, right[0]), np.where(own, -1.0, right[1])]
        goal = np.stack([left[0], right[0]], 1)
        return self.control.aim(sim, goal, np.stack([left[1], right[1]], 1), speed=0.6)

    def _take(self, sim: Sim, k: int, ends: np.ndarray, wanted: np.ndarray):
        """Returns goal (n, 3) and jaws (n,) of arm k: over the bar's end, down, closed where it is
        wanted; else let go, rise and go to wait."""
        tip, end = pair.tools(sim)[:, k], ends[:, k]
        aside = distance(tip[:, :2], end[:, :2])
        above = end[:, 2] + 0.09
        by = aside < 0.06
        shut = pair.opening(sim, self.body)[:, k] < 0.75
        case = [
            wanted & (aside < 0.012) & (tip[:, 2] < end[:, 2] + 0.008),
            wanted & (aside < 0.012),
            wanted,
            by & shut & (tip[:, 2] < end[:, 2] + 0.03),
            by & (tip[:, 2] < above - 0.01),
        ]
        wait = np.broadcast_to(_WAIT[k], tip.shape)
        over = np.concatenate([end[:, :2], above[:, None]], 1)
        rise = np.concatenate([tip[:, :2], above[:, None] + 0.02], 1)
        goal = np.select([c[:, None] for c in case], [end, end, over, tip, rise], wait)
        return goal, np.where(case[0], -1.0, 1.0)

    def label(self, sim: Sim) -> dict[str, np.ndarray]:
        *_, touch, _, _, done = self._judge(sim)
        left, right = touch[:, 0].any(1), touch[:, 1].any(1)
        return {
            "subtask": np.select([done, left & right, right, left], [4, 2, 3, 1], 0).astype(
                np.int32
            ),
            "target": sim.userdata[:, _BAR].astype(np.int32),
            "contact": touch.reshape(sim.n, 4),
        }
