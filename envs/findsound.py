"""FindSound: of identical boxes one beeps now and then; drive there by ear."""

from __future__ import annotations

import math

import mujoco
import numpy as np

from ..robots import rover
from . import drive, scene, yard
from .audio import SPEED, Audio, Speaker, ways
from .drive import Drive
from .rewards import distance
from .sim import Sim
from .task import Task

_PHRASES = (
    "go to the box that beeps",
    "find the box that the sound comes from",
    "drive to the box you hear",
)
_TARGET, _PHRASE, _PHASE = 0, 1, 2  # in userdata: which beeps, phrase, when (s)
_BOXES = ("box", "box2", "box3", "box4")
_HALF = 0.12  # m
_PERIOD, _BEEP = 0.8, 0.4  # s from beep to beep, and of a beep
_CLEAR, _STOP = 0.42, 0.45  # m from a box's middle: in passing by, and before it
_PITCH, _LOUD = 900.0, 1.0  # Hz; Pa 1 m away (91 dB: a reversing lorry's alarm)


class FindSound(Task):
    """Stand before the box that beeps; success within 55 cm of it, facing it, standing.

    `objects` (n, 8): the boxes' places as the rover sees them (m), in an order that tells nothing.
    The sense `audio` hears the beeps, and nothing else tells which box it is. For who learns from
    few numbers, `ears` (n, 4) says by the law of that sense how it is heard, 0 between beeps:
    amplitude at the left and right ear (Pa), how much earlier at the left (ms), and louder (dB).
    """

    control_dt = 0.1
    time_limit = 15.0
    control = Drive(rover.FORWARD, rover.TURN)
    camera = "yard"
    subtasks = ("drive", "arrive", "done")

    def spec(self) -> mujoco.MjSpec:
        s = rover.spec()
        yard.enclose(s, memory=3, half=2.3)
        for box in _BOXES:
            yard.add_thing(s, box, "cube", (_HALF,) * 3, (0.35, 0.42, 0.55, 1))
        return s

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        spots = scene.scatter(rng, 5, (-1.6, -1.6), (1.6, 1.6), apart=1.1)
        which, phrase, phase, yaw = rng.random(4).tolist()
        drive.put(sim, i, spots[0], math.pi * (2 * yaw - 1))
        sim.mocap_pos[i, :4, :2] = spots[1:]
        said = self.grammar.phrase(phrase, len(_PHRASES))
        sim.userdata[i] = int(4 * which), said, _PERIOD * phase

    def instruction(self, sim: Sim, i: int) -> str:
        return _PHRASES[int(sim.userdata[i, _PHRASE])]

    def _which(self, sim: Sim) -> np.ndarray:
        return sim.userdata[:, _TARGET].astype(int)

    def _source(self, sim: Sim) -> np.ndarray:
        return scene.pick(sim, sim.mocap_pos[:, :4], self._which(sim))

    def speakers(self, sim: Sim) -> tuple[Speaker, ...]:
        beeps = (sim.time + sim.userdata[:, _PHASE]) % _PERIOD < _BEEP
        return (Speaker(self._source(sim), np.full(sim.n, _PITCH), _LOUD * beeps),)

    def _ears(self, sim: Sim) -> np.ndarray:
        source, _, loud = self.speakers(sim)[0]
        gain, far = ways(sim.site("ears"), sim.turn("ears"), source[:, None], Audio.head)
        left, right = gain[:, 0].T
        early = (far[:, 0, 1] - far[:, 0, 0]) / SPEED * 1000
        over = 20 * np.log10(left / right)
        return np.stack([left * loud, right * loud, early * (loud > 0), over * (loud > 0)], 1)

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        boxes = drive.places(sim, sim.mocap_pos[:, :4, :2]).reshape(sim.n, -1)
        return {"proprio": drive.proprio(sim), "objects": boxes, "ears": self._ears(sim)}

    def _left(self, sim: Sim) -> np.ndarray:
        return np.maximum(distance(drive.place(sim), self._source(sim)[:, :2]) - _STOP, 0)

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        return yard.terms(self._left(sim), self.success(sim), span=4.5)

    pay = staticmethod(yard.pay)

    def success(self, sim: Sim) -> np.ndarray:
        return yard.facing(sim, self._source(sim)[:, :2], within=_STOP + 0.1)

    def expert(self, sim: Sim) -> np.ndarray | None:
        """Knows which box beeps, and heads for it, or past another in the way."""
        return yard.approach(sim, self.control, self._which(sim), 4, _CLEAR, _STOP)

    def label(self, sim: Sim) -> dict[str, np.ndarray]:
        stage = np.select([self.success(sim), self._left(sim) < 0.3], [2, 1], 0)
        return {"subtask": stage.astype(np.int32), "target": self._which(sim).astype(np.int32)}
