"""FetchAndBring: a mobile manipulator fetches the thing that the words name, and brings it."""

from __future__ import annotations

import math

import mujoco
import numpy as np

from ..robots import stretch
from . import drive, scene, yard
from .drive import Drive, Mobile
from .language import NAMES, refer
from .rewards import distance, tolerance
from .sim import Sim
from .task import Task

_PHRASES = ("bring {} to {}", "fetch {} and put it on {}", "carry {} over to {}")
_OBJECT, _DISC = 0, 1  # in userdata; then phrase, form of words, colours of objects and discs
_OBJECTS, _DISCS = ("cube", "cylinder"), ("disc", "disc2")
_HALF = 0.025  # m: half size of an object
_RADIUS = 0.12  # m, of a disc
_HOVER, _CLEAR = 0.30, 0.20  # m: the tool's height in driving, and from where on it drives
_ABEAM = 0.55  # m to the right of the base, where the arm takes things and sets them down
_ARM = ("lift", "arm", *stretch.WRIST)


class FetchAndBring(Task):
    """Take the named object from the floor to the named disc; success once it rests there.

    Success: within 10 cm of the disc's centre, on the floor, and let go. `proprio` (n, 20): the
    base's (`drive.proprio`), then of lift, arm, yaw, pitch, roll and gripper how far (m, rad; 6)
    and how fast (/s; 5, without the gripper), the tool's place (m; 3), as the base sees it.
    `objects` (n, 20): the named object's place, place seen from the tool (m) and first axis in the
    plane (2), the other's; the named disc's place (2), the other's; all as the base sees them.
    """

    control_dt = 0.1
    time_limit = 25.0
    control = Mobile(
        Drive(stretch.FORWARD, stretch.TURN),
        {name: stretch.VELOCITY[name] for name in _ARM},
        (0.0, stretch.OPENING),
        dt=0.1,
    )
    camera = "yard"
    subtasks = ("approach", "grasp", "carry", "done")

    def spec(self) -> mujoco.MjSpec:
        s = stretch.spec()
        yard.enclose(s, memory=8, half=1.6)
        for disc in _DISCS:
            scene.add_disc(s, disc, _RADIUS)
        for k, shape in enumerate(_OBJECTS):
            scene.add_object(s, shape, shape, _HALF, mass=0.1)
            s.body(shape).pos = (1.0 + k, -1.0, _HALF)
        return yard.settle(s, stretch.home(), stretch.hold())

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        start, colours, choices = rng.random((3, 4)).tolist()
        things = scene.scatter(rng, 2, (-0.15, -0.75), (0.85, -0.6), apart=0.35)
        discs = scene.scatter(rng, 2, (-0.15, 0.5), (0.85, 0.75), apart=0.4)
        drive.put(sim, i, (0.4 * start[0] - 1.15, 0.3 * start[1] - 0.15), 0.8 * start[2] - 0.4)
        for k, yaw in enumerate((rng.random(2) - 0.5).tolist()):
            scene.place(sim, i, k, things[k], 1.6 * yaw)
        sim.mocap_pos[i, :2, :2] = discs
        looks = [int(len(NAMES) * c) for c in colours]
        looks[3] = (looks[2] + 1 + int((len(NAMES) - 1) * colours[3])) % len(NAMES)  # discs differ
        which, disc = int(2 * choices[0]), int(2 * choices[1])
        shapes = (*_OBJECTS, "disc", "disc")
        looks = self.grammar.colours(rng, shapes, [which, 2 + disc], drawn=looks)
        scene.paint(sim, i, (*_OBJECTS, *_DISCS), looks)
        said = self.grammar.phrase(choices[2], len(_PHRASES)), self.grammar.form(choices[3])
        sim.userdata[i] = [which, disc, *said, *looks]

    def instruction(self, sim: Sim, i: int) -> str:
        which, disc, phrase, form, *colours = sim.userdata[i].astype(int)
        looks = [NAMES[c] for c in colours]
        thing = refer(which, list(zip(looks[:2], _OBJECTS, strict=True)), form)
        spot = refer(disc, [(look, "disc") for look in looks[2:]], form=0)
        return _PHRASES[phrase].format(thing, spot)

    def _named(self, sim: Sim) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns which object is named (n,), its place (n, 3) and the named disc's (n, 2)."""
        which, disc = (sim.userdata[:, k].astype(int) for k in (_OBJECT, _DISC))
        thing = scene.pick(sim, scene.objects(sim)[0], which)
        return which, thing, scene.pick(sim, sim.mocap_pos[:, :2, :2], disc)

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        places, axes, _ = scene.objects(sim)
        which, disc = (sim.userdata[:, k].astype(int) for k in (_OBJECT, _DISC))
        rows, tip = sim.rows[:, None], sim.site("tcp")
        near = drive.places(sim, places[..., :2])
        tool = drive.places(sim, tip[:, None, :2])
        parts = [near, places[..., 2:], near - tool, (places - tip[:, None])[..., 2:]]
        things = np.concatenate([*parts, drive.seen(sim, axes[..., :2])], 2)
        things = things[rows, scene.order(which, 2)].reshape(sim.n, -1)
        discs = drive.places(sim, sim.mocap_pos[:, :2, :2])[rows, scene.order(disc, 2)]
        arm = self.control.arm(sim)
        own = [drive.proprio(sim), sim.actuator_length[:, arm.start : arm.stop + 1]]
        own += [sim.actuator_velocity[:, arm], tool[:, 0], tip[:, 2:]]
        return {
            "proprio": np.concatenate(own, 1),
            "objects": np.concatenate([things, discs.reshape(sim.n, -1)], 1),
        }

    def _judge(self, sim: Sim):
        which, thing, spot = self._named(sim)
        left, right = scene.pick(sim, scene.touched(sim), which).T
        gap = distance(thing[:, :2], spot)
        down = thing[:, 2] < _HALF + 0.008
        return thing, spot, left & right, gap, down, (gap < 0.1) & down & ~(left | right)

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        thing, _, grasp, gap, _, placed = self._judge(sim)
        far = distance(sim.site("tcp"), thing)
        return {
            "near": tolerance(far, margin=2.0, shape="linear", at_margin=0),
            "there": tolerance(gap, margin=2.5, shape="linear", at_margin=0),
            "grasp": grasp,
            "lifted": thing[:, 2] > _HALF + 0.02,
            "placed": placed,
        }

    @staticmethod
    def pay(near, there, grasp, lifted, placed) -> np.ndarray:
        paid = np.where(grasp, 0.35 + 0.1 * lifted + 0.5 * there, 0.3 * near)
        return np.where(placed, 1.0, paid)

    def success(self, sim: Sim) -> np.ndarray:
        return self._judge(sim)[-1]

    def expert(self, sim: Sim) -> np.ndarray | None:
        """Drives past the place so that it is to its right, then lets the arm work across."""
        thing, spot, grasp, gap, down, _ = self._judge(sim)
        arm, tip = self.control.arm(sim), sim.site("tcp")
        opening = sim.actuator_length[:, arm.stop] / stretch.OPENING
        dropped = down & (gap < 0.04)
        goal = np.where((grasp | dropped)[:, None], spot, thing[:, :2])
        held = np.where((grasp | dropped)[:, None], thing[:, :2], tip[:, :2])
        # From the tool, or what it holds, to where that should be, as the base sees it.
        right, far = drive.places(sim, goal[:, None])[:, 0], drive.seen(sim, goal - held)
        tool = drive.places(sim, tip[:, None, :2])[:, 0]
        abeam = (np.abs(right[:, 0] - tool[:, 0]) < 0.15) & (right[:, 1] < -0.27)
        abeam &= right[:, 1] > -0.7
        over = (np.abs(far) < 0.012).all(1) & abeam
        turned = self._turned(sim)
        level = np.abs(turned - sim.actuator_length[:, arm.stop - 1]) < 0.08
        # Where the base is to go: along the tangent that passes the goal `_ABEAM` m to its right.
        way = goal - drive.place(sim)
        long = np.sqrt(np.einsum("ij,ij->i", way, way))
        aside = np.arcsin(np.minimum(_ABEAM / long, 1))
        c, s = np.cos(aside), np.sin(aside)
        way = np.stack([c * way[:, 0] - s * way[:, 1], s * way[:, 0] + c * way[:, 1]], 1)
        base = self.control.base.head(sim, way, c * long - tool[:, 0])
        fine = np.stack([np.clip(3 * far[:, 0] / stretch.FORWARD, -0.5, 0.5), 0 * c], 1)
        base = np.where(abeam[:, None], fine, base)
        stay = dropped | (~abeam & (tip[:, 2] < _CLEAR))
        base = np.where(stay[:, None], 0.0, base)
        at = tip[:, 2] < thing[:, 2] + 0.008
        low = np.where(grasp, tip[:, 2] + _HALF + 0.001 - thing[:, 2], thing[:, 2])
        z = np.select([dropped & (opening < 0.8), dropped, over & level], [tip[:, 2], _HOVER, low])
        z = np.where(dropped | (over & level), z, _HOVER)
        jaws = np.select([dropped, grasp, over & level & at], [1.0, -1.0, -1.0], 1.0)
        now = sim.actuator_length[:, arm]
        out = np.where(abeam, now[:, 1] - far[:, 1], stretch.HOME["arm"])
        goals = np.stack(
            [now[:, 0] + z - tip[:, 2], np.where(dropped, now[:, 1], out), 0 * c,
             np.full(sim.n, stretch.HOME["wrist_pitch"]), turned], 1,
        )  # fmt: skip
        return np.concatenate([base, self.control.reach(sim, goals), jaws[:, None]], 1)

    def _turned(self, sim: Sim) -> np.ndarray:
        """Returns the wrist's roll `(n,)` in rad at which the jaws are along the object's sides."""
        which = sim.userdata[:, _OBJECT].astype(int)
        axis = drive.seen(sim, scene.objects(sim)[1][..., :2])
        x, y = scene.pick(sim, axis, which).T
        quarter = math.pi / 2
        turn = (np.arctan2(y, x) + quarter / 2) % quarter - quarter / 2
        return np.where(which == _OBJECTS.index("cube"), -turn, 0.0)

    def label(self, sim: Sim) -> dict[str, np.ndarray]:
        which, thing, _ = self._named(sim)
        touch = scene.pick(sim, scene.touched(sim), which)
        carried = touch.all(1) & (thing[:, 2] > _HALF + 0.01)
        stage = np.select([self.success(sim), carried, touch.any(1)], [3, 2, 1], 0)
        return {
            "subtask": stage.astype(np.int32),
            "target": which.astype(np.int32),
            "contact": touch,
        }
