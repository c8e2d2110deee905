"""Pour: pour what is in a cup into the bowl that the words name. The tool must tilt for that."""

from __future__ import annotations

import functools

import mujoco
import numpy as np

from . import scene, vessels
from .carry import held, things
from .furniture import paint
from .language import NAMES, refer
from .rewards import distance, tolerance
from .sim import Sim
from .task import Task

_BOWLS = ("bowl", "bowl2")
_GRAINS, _GRAIN = 20, 0.005  # how many there are, and their radius in m
_CUP, _TALL = 0.02, 0.055  # m: outer radius and height of the cup
_BOWL, _DEEP = 0.06, 0.035  # m: radius and height of the bowls
_ENOUGH = 18  # grains
_WHICH = 0  # in userdata; then phrase, form of words, colours of the bowls and of the cup
_HIGH = (0.15, 0.27)  # m: the tool's height as it carries and pours, aside or ahead
_GRIP = 0.014  # m above the cup's middle that it is held: so grains pass between its rim and a palm
_BACK = 0.035  # m from the tool, against where its fingers point, to where grains fall
_TILT = 1.95  # rad, of the tool from straight down as it pours
_LEAN = 0.25  # rad: leaning so far it has begun to pour


def _add_grains(s: mujoco.MjSpec) -> None:
    """Adds small spheres that slide but do not turn: no friction, a little drag, half the cost.

    Their coordinates, the first of all that are not an arm's, are their places in the world, m.
    """
    for k in range(_GRAINS):
        body = s.worldbody.add_body(name=f"grain{k}")
        for axis in np.eye(3):
            body.add_joint(type=mujoco.mjtJoint.mjJNT_SLIDE, axis=axis, damping=0.003)
        body.add_geom(
            name=f"grain{k}", type=mujoco.mjtGeom.mjGEOM_SPHERE, size=(_GRAIN, 0, 0), mass=0.001,
            condim=1, priority=1, solref=(0.01, 1), contype=1, conaffinity=3,
            rgba=(0.93, 0.92, 0.88, 1),
        )  # fmt: skip


@functools.cache
def _settled() -> np.ndarray:
    """Returns where the grains lie at rest in an upright cup, `(grains, 3)` m from its middle."""
    s = mujoco.MjSpec()
    s.option.timestep = scene.TIMESTEP
    s.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    _add_grains(s)
    vessels.add_cup(s, "cup", _CUP, _TALL, mass=1.0).pos = (0, 0, 0)
    model = s.compile()
    data = mujoco.MjData(model)
    k = np.arange(_GRAINS)  # dropped in along a screw
    data.qpos[:] = 0.008 * np.stack([np.cos(2.4 * k), np.sin(2.4 * k), 0.9 * k - 2], 1).ravel()
    mujoco.mj_step(model, data, nstep=1000)
    return data.qpos.reshape(_GRAINS, 3).copy()


def _grains(sim: Sim) -> np.ndarray:
    """Returns where the grains are, `(n, grains, 3)` m."""
    first = int(sim.model.joint(sim.model.body("grain0").jntadr[0]).qposadr[0])
    return sim.qpos[:, first : first + 3 * _GRAINS].reshape(sim.n, _GRAINS, 3)


class Pour(Task):
    """Take the cup and pour the grains in it into the named bowl; success with 18 of 20 in there.

    `objects` (n, 32): the cup's place, place seen from the tool (m), two axes, velocity (m/s); of
    the named bowl and the other one, place and place seen from the cup (m); the grains' middle (m)
    and the shares of them in the named and in the other bowl.
    """

    control_dt = 0.1
    time_limit = 12.0
    robots = scene.ARMS
    default_control = "delta_pose"
    camera = "front"
    subtasks = ("approach", "grasp", "carry", "pour", "done")
    phrases = ("pour the cup into {}", "empty the cup into {}", "pour what is in the cup into {}")

    def spec(self) -> mujoco.MjSpec:
        s = scene.tabletop(self.body, memory=6)
        s.option.jacobian = mujoco.mjtJacobian.mjJAC_DENSE  # a quarter faster at this size
        for name in _BOWLS:
            vessels.add_bowl(s, name, _BOWL, _DEEP)
        _add_grains(s)
        vessels.add_cup(s, "cup", _CUP, _TALL, mass=0.08).add_freejoint(name="cup")
        scene.add_touch(s, "cup")
        return scene.finish(s, self.body)

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        looks = rng.permutation(len(NAMES))[:3].tolist()
        (x, y, yaw), far, aside, choices = rng.random((4, 3)).tolist()
        cup = np.array([0.33 + 0.06 * x, 0.06 * y - 0.03, _TALL / 2])
        angle = 0.8 * yaw - 0.4
        scene.place(sim, i, 0, cup[:2], angle)
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        inside = _settled() @ np.block(
            [[turn, np.zeros((2, 1))], [np.zeros((1, 2)), np.ones((1, 1))]]
        )
        _grains(sim)[i] = cup + inside
        for k, side in enumerate((1, -1)):
            sim.mocap_pos[i, 1 + k, :2] = 0.38 + 0.05 * far[k], side * (0.13 + 0.04 * aside[k])
        which, shapes = int(2 * choices[0]), ("bowl", "bowl", "cup")
        looks = self.grammar.colours(rng, shapes, [which], drawn=looks, distinct=True)
        paint(sim, i, (*_BOWLS, "cup"), looks)
        phrase = self.grammar.phrase(choices[1], len(self.phrases))
        sim.userdata[i] = [which, phrase, int(2 * choices[2]), *looks]

    def instruction(self, sim: Sim, i: int) -> str:
        which, phrase, form, *colours = sim.userdata[i].astype(int)
        looks = [(NAMES[c], "bowl") for c in colours[:2]]
        return self.phrases[phrase].format(refer(which, looks, form))

    def _judge(self, sim: Sim):
        """Returns the named bowl's place and the other's `(n, 2, 3)` m, the share of the grains in
        each `(n, 2)`, the cup's place (n, 3) and touches (n, 2), and success."""
        which = sim.userdata[:, _WHICH].astype(int)
        bowls = sim.mocap_pos[:, 1:3][sim.rows[:, None], scene.order(which, 2)]
        gap = _grains(sim)[:, None] - bowls[:, :, None]
        inside = (gap[..., 0] ** 2 + gap[..., 1] ** 2 < _BOWL**2) & (gap[..., 2] < _DEEP + 0.01)
        count = inside.sum(2)
        cup, touch = scene.objects(sim)[0][:, 0], scene.touched(sim)[:, 0]
        aloft = (distance(cup[:, :2], bowls[:, 0, :2]) > _BOWL + _CUP) | (cup[:, 2] > 2 * _DEEP)
        return bowls, count / _GRAINS, cup, touch, aloft & (count[:, 0] >= _ENOUGH)

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        bowls, share, cup, *_ = self._judge(sim)
        seen = np.concatenate([bowls, bowls - cup[:, None]], 2).reshape(sim.n, -1)
        flat = [things(sim)[:, 0], seen, _grains(sim).mean(1), share]
        return {"proprio": scene.proprio(sim, self.body), "objects": np.concatenate(flat, 1)}

    def _ahead(self) -> bool:
        """Whether the arm pours ahead: one of five joints, whose jaws cannot turn to the side."""
        return len(self.body.joints) < 6

    def _rise(self, place: np.ndarray) -> np.ndarray:
        """Returns where the fingers point as it pours, `(n, 3)`: to the left, seen from the base,
        where no arm has to bend its wrist under itself, or ahead."""
        x, y = (place - self.body.mount)[:, :2].T
        far, level = np.hypot(x, y), np.zeros(len(place))
        return np.stack(
            [x / far, y / far, level] if self._ahead() else [-y / far, x / far, level], 1
        )

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        """`near`: the tool is at the cup; `there`: that is at the bowl; `share`: of the grains, in
        it."""
        bowls, share, cup, touch, done = self._judge(sim)
        gap = distance(cup[:, :2], bowls[:, 0, :2])
        return {
            "near": scene.nearness(sim, cup),
            "there": tolerance(gap, high=0.05, margin=0.3, shape="long_tail"),
            "grasp": held(touch),
            "lifted": cup[:, 2] > _TALL,
            "share": share[:, 0],
            "done": done,
        }

    @staticmethod
    def pay(near, there, grasp, lifted, share, done) -> np.ndarray:
        paid = 0.1 * near + grasp * (0.1 + 0.1 * lifted + 0.2 * lifted * there)
        return np.where(done, 1.0, paid + 0.45 * share)

    def success(self, sim: Sim) -> np.ndarray:
        return self._judge(sim)[-1]

    def expert(self, sim: Sim) -> np.ndarray | None:
        """Takes the cup from above, carries it over the bowl and tilts it, more once in place."""
        bowls, _, cup, touch, _ = self._judge(sim)
        tip, grasp = sim.site("tcp"), held(touch)
        goal = bowls[:, 0] + _BACK * self._rise(bowls[:, 0])
        high = _HIGH[self._ahead()]
        aside, off = distance(tip[:, :2], cup[:, :2]), distance(tip[:, :2], goal[:, :2])
        case = [
            grasp & (tip[:, 2] > high - 0.03),
            grasp,
            (aside < 0.012) & (tip[:, 2] < cup[:, 2] + _GRIP + 0.008),
            aside < 0.012,
        ]
        flat = [c[:, None] for c in case]
        xy = np.select(flat, [goal[:, :2], tip[:, :2], cup[:, :2], cup[:, :2]], cup[:, :2])
        low = cup[:, 2] + _GRIP
        z = np.select(case, [high, high, low, low], _HIGH[0])
        gently = np.maximum(2 * scene.opening(sim, self.body) - 1.6, -1)  # fast fingers spill
        jaws = np.select(case, [gently, gently, gently, np.ones(sim.n)], 1.0)
        # It leans on as far as it is in place: an arm that tilts its tool moves it, too.
        lean = np.arccos(np.clip(-sim.turn("tcp")[:, 8], -1, 1))
        pours = (case[0] & (off < 0.03)) | (grasp & (lean > _LEAN))
        more = np.minimum(lean + 0.4 * np.clip(2 - off / 0.02, 0, 1), _TILT)
        tilt = np.where(pours, more, 0.0)
        place = np.concatenate([xy, z[:, None]], 1)
        return self.control.aim_pose(sim, place, self._frame(tip, tilt), jaws, speed=0.6)

    def _frame(self, tip: np.ndarray, tilt: np.ndarray) -> np.ndarray:
        """Returns the tool's rotation `(n, 3, 3)`: fingers down, raised by tilt; they close across
        the way that they rise."""
        rise = self._rise(tip)
        across = np.stack([-rise[:, 1], rise[:, 0], rise[:, 2]], 1)
        along = np.sin(tilt)[:, None] * rise - np.cos(tilt)[:, None] * np.array([0.0, 0.0, 1.0])
        return np.stack([np.cross(across, along), across, along], 2)

    def label(self, sim: Sim) -> dict[str, np.ndarray]:
        _, share, cup, touch, done = self._judge(sim)
        pours, lifted = share.sum(1) > 0, held(touch) & (cup[:, 2] > _TALL / 2 + 0.01)
        subtask = np.select([done, pours, lifted, touch.any(1)], [4, 3, 2, 1], 0)
        return {
            "subtask": subtask.astype(np.int32),
            "target": sim.userdata[:, _WHICH].astype(np.int32),
            "contact": touch,
        }
