"""PegInsert: put the peg that the words name into the socket that they name."""

from __future__ import annotations

from typing import ClassVar

import mujoco
import numpy as np

from . import furniture, scene
from .language import NAMES, refer
from .rewards import distance, tolerance
from .sim import Sim
from .task import Task

_PEGS, _SOCKETS = ("peg", "peg2"), ("socket", "socket2")
_PHRASES = ("put {} into {}", "insert {} into {}", "plug {} into {}")
_RADIUS, _HALF, _DEEP = 0.012, 0.04, 0.03  # m: of a peg, half its length, depth of a socket
_HOLD = 0.015  # m above a peg's middle that it is held
_CLEAR = 0.15  # m: height of a peg's middle on its way, over all others
_PEG, _SOCKET = 0, 1  # in userdata; then phrase, form of words, colours of pegs and sockets


class PegInsert(Task):
    """Grasp the named upright peg and let it go in the named square socket, down on the table.

    A socket is `clearance` (m) wider than a peg. `objects` (n, 42): the named peg's place, place
    seen from the tool (m), two axes and velocity (m/s), the other's; the named socket's place and
    place seen from the peg, the other's.
    """

    control_dt = 0.1
    time_limit = 12.0
    robots = ("arm", "ur5e", "ur10e", "panda", "fr3")  # in an SO-101's jaw a peg leans too much
    camera = "front"
    subtasks = ("approach", "grasp", "carry", "insert", "done")
    clearance: ClassVar[float] = 0.003

    def spec(self) -> mujoco.MjSpec:
        s = scene.tabletop(self.body, memory=8)
        for name in _SOCKETS:
            furniture.add_socket(s, name, _RADIUS + self.clearance / 2, _DEEP)
        for name in _PEGS:
            scene.add_object(s, name, "cylinder", (_RADIUS, _HALF, 0), mass=0.05)
        return scene.finish(s, self.body)

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        spots = scene.scatter(rng, 4, (0.32, -0.19), (0.49, 0.19), apart=0.11)
        for k, name in enumerate(_SOCKETS):
            scene.place(sim, i, k, spots[k], 0.0)
            furniture.stand_at(sim, i, name, spots[2 + k])
        pegs, sockets = (rng.permutation(len(NAMES))[:2].tolist() for _ in range(2))
        peg, socket, phrase, form = rng.random(4)
        peg, socket = int(2 * peg), int(2 * socket)
        shapes = ("peg", "peg", "socket", "socket")
        looks = self.grammar.colours(rng, shapes, [peg, 2 + socket], drawn=[*pegs, *sockets])
        scene.paint(sim, i, _PEGS, looks[:2])
        furniture.paint(sim, i, _SOCKETS, looks[2:])
        said = self.grammar.phrase(phrase, 3), int(2 * form)
        sim.userdata[i] = [peg, socket, *said, *looks]

    def instruction(self, sim: Sim, i: int) -> str:
        peg, socket, phrase, form, *looks = sim.userdata[i].astype(int)
        thing = refer(peg, [(NAMES[c], "peg") for c in looks[:2]], form)
        return _PHRASES[phrase].format(
            thing, refer(socket, [(NAMES[c], "socket") for c in looks[2:]], form=0)
        )

    def _judge(self, sim: Sim):
        """Returns the named peg's place (n, 3), the named socket's (n, 3), the fingers on the peg
        (n, 2), how far aside it is (n,; m), whether it is down there and whether it is let go."""
        which = sim.userdata[:, _PEG].astype(int)
        peg = scene.pick(sim, scene.objects(sim)[0], which)
        sockets = furniture.sites(sim, _SOCKETS)
        socket = scene.pick(sim, sockets, sim.userdata[:, _SOCKET].astype(int))
        touch = scene.pick(sim, scene.touched(sim), which)
        aside = distance(peg[:, :2], socket[:, :2])
        down = (aside < 0.006) & (np.abs(peg[:, 2] - _HALF) < 0.005)
        return peg, socket, touch, aside, down, down & ~touch.any(1)

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        places, axes, speeds = scene.objects(sim)
        peg, socket = (sim.userdata[:, k].astype(int) for k in (_PEG, _SOCKET))
        rows, tip = sim.rows[:, None], sim.site("tcp")[:, None]
        pegs = np.concatenate([places, places - tip, axes, speeds], 2)
        pegs = pegs[rows, scene.order(peg, 2)]
        sockets = furniture.sites(sim, _SOCKETS)[rows, scene.order(socket, 2)]
        sockets = np.concatenate([sockets, sockets - pegs[:, :1, :3]], 2)
        flat = [pegs.reshape(sim.n, -1), sockets.reshape(sim.n, -1)]
        return {"proprio": scene.proprio(sim, self.body), "objects": np.concatenate(flat, 1)}

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        """`deep`: how deep in the socket the peg is, in [0, 1]; the others as `carry` has them."""
        peg, _, touch, aside, _, done = self._judge(sim)
        deep = np.clip(1 - (peg[:, 2] - _HALF) / _DEEP, 0, 1) * (aside < 0.006)
        return {
            "near": scene.nearness(sim, peg),
            "there": tolerance(aside, high=0.002, margin=0.2, shape="long_tail"),
            "deep": deep,
            "grasp": touch.all(1),
            "lifted": peg[:, 2] > _HALF + 0.02,
            "done": done,
        }

    @staticmethod
    def pay(near, there, deep, grasp, lifted, done) -> np.ndarray:
        held = grasp * (0.1 + 0.1 * lifted + 0.3 * there + 0.25 * deep)
        return np.where(done, 1.0, 0.2 * near + held)

    def success(self, sim: Sim) -> np.ndarray:
        return self._judge(sim)[-1]

    def expert(self, sim: Sim) -> np.ndarray | None:
        """Grasps the peg's upper half, lifts, carries, lowers straight down, lets go, rises."""
        peg, socket, touch, aside, down, done = self._judge(sim)
        tip, held = sim.site("tcp"), touch.all(1)
        near = distance(tip[:, :2], peg[:, :2]) < 0.01
        low = tip[:, 2] < peg[:, 2] + _HOLD + 0.006
        above = peg[:, 2] - _HALF - _DEEP  # m between the peg and the socket's rim
        funnel = np.where(above < -0.004, 0.006, 0.001 + 0.05 * np.maximum(above, 0))
        case = [
            down & ~done,
            done,
            held & (aside < funnel),
            held & (aside < 0.02) & (above > 0.002),
            held & (above > 0.06),
            held,
            near & low,
            near,
        ]
        flat = [c[:, None] for c in case]
        here, there = tip[:, :2], peg[:, :2]
        carry = here + 1.0 * (socket - peg)[:, :2]  # more than it lacks: servos have dry friction
        leave = here.copy()  # the finger that still touches it
        leave[:, 1] += 0.006 * (touch[:, 0].astype(float) - touch[:, 1])
        xy = np.select(flat, [leave, here, carry, carry, carry, here, there, there], there)
        hold = peg[:, 2] + _HOLD
        lower = tip[:, 2] + np.maximum(_HALF - peg[:, 2], -0.015)
        up = np.full(sim.n, _CLEAR + _HOLD)
        z = np.select(case, [tip[:, 2], up, lower, tip[:, 2], up, up, hold, hold], up)
        jaws = np.select(case, [0.2, 0.2, -1.0, -1.0, -1.0, -1.0, -1.0, 1.0], 1.0)
        return self.control.aim(sim, np.concatenate([xy, z[:, None]], 1), jaws, speed=0.6)

    def label(self, sim: Sim) -> dict[str, np.ndarray]:
        peg, _, touch, aside, _, done = self._judge(sim)
        carried = touch.all(1) & (peg[:, 2] > _HALF + 0.01)
        inside = touch.any(1) & (aside < 0.006) & (peg[:, 2] < _HALF + _DEEP)
        return {
            "subtask": np.select([done, inside, carried, touch.any(1)], [4, 3, 2, 1], 0).astype(
                np.int32
            ),
            "target": sim.userdata[:, _PEG].astype(np.int32),
            "contact": touch,
        }
