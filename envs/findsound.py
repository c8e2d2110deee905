"""FindSound: of identical boxes one beeps now and then; drive there by ear."""

from __future__ import annotations

import math

import mujoco
import numpy as np

from ..robots import rover
from . import drive, scene, yard
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
# Two cardioid microphones 17 cm apart, turned 55 degrees outwards. Source: the ORTF stereo
# technique; a cardioid's gain is (1 + cos angle) / 2, a free field's pressure falls with 1 / r.
SPACING, OUTWARDS, SPEED = 0.17, math.radians(55), 343.0  # m, rad, m/s


def hear(sim: Sim, source: np.ndarray, loud: np.ndarray) -> np.ndarray:
    """Returns what the site `ears` hears of a source at `source` (n, 3), `(n, 4)`.

    Pressure at the left and the right ear in that of an ear that faces it from 1 m, times `loud`
    (n,); by how much the left hears it earlier (ms); the left's level over the right's (dB).
    All are 0 where `loud` is.
    """
    right, _, back = np.moveaxis(sim.turn("ears").reshape(-1, 3, 3), 2, 0)
    ahead, level, far = -back, [], []
    for side in (-1, 1):
        way = source - (sim.site("ears") + side * SPACING / 2 * right)
        r = np.sqrt(np.einsum("ij,ij->i", way, way))
        axis = math.cos(OUTWARDS) * ahead + side * math.sin(OUTWARDS) * right
        level.append((1 + np.einsum("ij,ij->i", way, axis) / r) / 2 / r)
        far.append(r)
    early = (far[1] - far[0]) / SPEED * 1000
    # A cardioid is deaf to what is right behind it; 60 dB below the other ear it hears nothing.
    over = 20 * np.log10(np.clip(level[0] / np.maximum(level[1], 1e-9), 1e-3, 1e3))
    sounds = loud > 0
    return np.stack([level[0] * loud, level[1] * loud, early * sounds, over * sounds], 1)


class FindSound(Task):
    """Stand before the box that beeps; success within 55 cm of it, facing it, standing.

    `objects` (n, 8): the boxes' places as the rover sees them (m), in an order that tells nothing;
    `ears` (n, 4) is what `hear` says, 0 between beeps. Nothing else tells which box it is.
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

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        beeps = (sim.time + sim.userdata[:, _PHASE]) % _PERIOD < _BEEP
        boxes = drive.places(sim, sim.mocap_pos[:, :4, :2]).reshape(sim.n, -1)
        ears = hear(sim, self._source(sim), beeps.astype(float))
        return {"proprio": drive.proprio(sim), "objects": boxes, "ears": ears}

    def _left(self, sim: Sim) -> np.ndarray:
        return np.maximum(distance(drive.place(sim), self._source(sim)[:, :2]) - _STOP, 0)

    def reward(self, sim: Sim) -> np.ndarray:
        return yard.nearness(self._left(sim), self.success(sim), span=4.5)

    def success(self, sim: Sim) -> np.ndarray:
        return yard.facing(sim, self._source(sim)[:, :2], within=_STOP + 0.1)

    def expert(self, sim: Sim) -> np.ndarray | None:
        """Knows which box beeps, and heads for it, or past another in the way."""
        return yard.approach(sim, self.control, self._which(sim), 4, _CLEAR, _STOP)

    def label(self, sim: Sim) -> dict[str, np.ndarray]:
        stage = np.select([self.success(sim), self._left(sim) < 0.3], [2, 1], 0)
        return {"subtask": stage.astype(np.int32), "target": self._which(sim).astype(np.int32)}
