"""Earthmoving: a wheel loader that carries gravel to the hopper the words name, or drives about.

The gravel is coarse: rocks of 0.42 m that slide but do not turn, as edged ones hardly roll. They
meet the ground, the walls, each other and the bucket, but neither wheels nor frames.
"""

from __future__ import annotations

import math
from functools import lru_cache

import mujoco
import numpy as np

from ..robots import loader
from . import ground, scene
from .control import Direct
from .language import NAMES, refer
from .rewards import distance, tolerance
from .sim import Sim
from .task import Task

_HOPPERS = ("hopper", "hopper2")
_POSTS = ("post", "post2", "post3")
_PARTS = ("near", "far", "left", "right")
_COUNT, _GRAIN = 48, 0.21  # spheres, and their radius in m
_MASS = 2650 * 4 / 3 * math.pi * _GRAIN**3  # kg: solid rock
_ASKED = 7  # spheres in the hopper: 0.7 t
_FULL = 10  # spheres with which the expert leaves the pile
_WITHIN, _WALL = (1.1, 1.7), 1.6  # m: a hopper's half depth and width inside, and its height
_MOUTH, _BACK, _SIDE = 7.0, 9.6, 1.8  # m: the gravel's bay
_PILES = 3  # ways in which the gravel lies, each also mirrored
_NAMED = 0  # in userdata: which hopper or post is meant; then words and colours
_LAYERS = [  # m: rows of six from the back wall, each layer in the hollows of the one below
    (9.33 - 0.24 * odd - 0.49 * row, -1.45 + 0.25 * odd + 0.52 * k, 0.27 + 0.40 * layer)
    for layer, odd, rows in ((0, 0, 3), (1, 1, 3), (2, 0, 2))
    for row in range(rows)
    for k in range(6)
]
_STEER, _GRAINS = 7, 14  # where in qpos the joints and the grains begin
_ALL, _G = 14, mujoco.mjtGeom  # what meets walls: machine 2, grains 4, bucket 8


def _wall(body: mujoco.MjsBody, name: str, pos, half, rgba) -> None:
    body.add_geom(
        name=name, type=_G.mjGEOM_BOX, pos=pos, size=half, rgba=rgba, contype=1,
        conaffinity=_ALL, friction=(0.6, 0.005, 0.0001),
    )  # fmt: skip


def _yard(eye, target) -> mujoco.MjSpec:
    """Returns the loader at its place, seen from `eye` towards `target` (m), and nothing else."""
    s = ground.lay(loader.spec(), timestep=0.0125, memory=5, square=2.0, meets=_ALL)
    # So many contacts are solved fastest by conjugate gradients.
    s.option.solver = mujoco.mjtSolver.mjSOL_CG
    s.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    s.option.iterations, s.option.tolerance = 50, 1e-6
    quat = ground.looking(eye, target)
    s.worldbody.add_camera(name="yard", pos=eye, quat=quat, fovy=44)
    return s


def _site() -> mujoco.MjSpec:
    """Returns the yard with the bay, the hoppers and the gravel, all grains at the origin."""
    s = _yard((-7.5, -13, 9), (4, 0.5, 0))
    grey, half = (0.62, 0.62, 0.60, 1), 0.6
    middle, deep = (_MOUTH + _BACK) / 2, (_BACK - _MOUTH) / 2
    _wall(s.worldbody, "back", (_BACK + 0.15, 0, half), (0.15, _SIDE + 0.3, half), grey)
    for name, y in (("bay_left", _SIDE + 0.15), ("bay_right", -_SIDE - 0.15)):
        _wall(s.worldbody, name, (middle, y, half), (deep, 0.15, half), grey)
    for k, name in enumerate(_HOPPERS):
        body = s.worldbody.add_body(name=name, mocap=True, pos=(5.5, 6.5 - 13 * k, 0))
        (x, y), h = _WITHIN, _WALL / 2
        for part, sign in zip(_PARTS, (-1, 1, 1, -1), strict=True):
            along = part in _PARTS[:2]
            pos = (sign * (x + 0.06), 0, h) if along else (0, sign * (y + 0.06), h)
            size = (0.06, y + 0.12, h) if along else (x, 0.06, h)
            _wall(body, f"{name}_{part}", pos, size, (1, 1, 1, 1))
    for k in range(_COUNT):
        body = s.worldbody.add_body(name=f"grain{k}")
        for axis in np.eye(3):
            body.add_joint(type=mujoco.mjtJoint.mjJNT_SLIDE, axis=axis)
        shade = 0.42 + 0.16 * ((k * 7) % 5) / 4
        body.add_geom(
            type=_G.mjGEOM_SPHERE, size=(_GRAIN, 0, 0), mass=_MASS, contype=4, conaffinity=13,
            rgba=(shade, 0.94 * shade, 0.82 * shade, 1), friction=(0.7, 0.005, 0.0001),
            solimp=(0.98, 0.99, 0.001, 0.5, 2),
        )  # fmt: skip
    return s


def _parked(model: mujoco.MjModel) -> mujoco.MjData:
    """Returns the state with the loader at home, all else where it was put."""
    data = mujoco.MjData(model)
    data.qpos[: len(loader.home())] = loader.home()
    data.act[:] = loader.HOME[:3]
    return data


def _rest(data: mujoco.MjData, seconds: float) -> None:
    """Lets all fall into place in so much simulated time, braked so that it comes to rest."""
    for _ in range(round(seconds / data.model.opt.timestep)):
        mujoco.mj_step(data.model, data)
        data.qvel *= 0.96


@lru_cache(1)
def _settled() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns coordinates `(piles, nq)` in which all rests, the servos' states and mocap poses."""
    model = _site().compile()
    model.opt.iterations, model.opt.tolerance = 60, 1e-8
    rng, found = np.random.default_rng(0), []
    for _ in range(_PILES):
        data = _parked(model)
        grains = data.qpos[len(loader.home()) :].reshape(-1, 3)
        grains[:] = np.array(_LAYERS) + rng.uniform(-0.04, 0.04, (_COUNT, 3))
        _rest(data, 12.5)
        found.append(data.qpos.round(4))
    return np.array(found), data.act.copy(), data.mocap_pos.ravel()


def _pose(sim: Sim) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns the front axle's middle (n, 2) in m, where the front half heads (n, 2), the speed
    along it (n,) in m/s and the bucket's pitch (n,) in rad, 0 level, its edge up positive."""
    frame = sim.xmat[:, sim.model.body("front").id]
    heading = frame[:, [0, 3]] / np.hypot(frame[:, 0], frame[:, 3])[:, None]
    axle = sim.body("front")[:, :2] + loader.AXLE * heading
    turn = sim.turn("bucket")
    speed = loader.RADIUS * sim.qvel[:, 9:13].mean(1)
    return axle, heading, speed, np.arctan2(turn[:, 6], turn[:, 8])


def _proprio(sim: Sim) -> np.ndarray:
    """Returns `(n, 23)`: place of the front axle (m), heading (cosine, sine), the bucket's edge (m)
    and pitch (rad), steer, lift and tilt (rad), their rates and targets, the wheels' speeds (m/s),
    speed along the heading (m/s), rate of turning (rad/s) and the steering's lead."""
    axle, heading, speed, pitch = _pose(sim)
    joints, rates = sim.qpos[:, _STEER : _STEER + 3], sim.qvel[:, 6:9]
    wheels = loader.RADIUS * sim.qvel[:, 9:13]
    own = [axle, heading, sim.site("tcp"), pitch[:, None], joints, rates, sim.act]
    return np.concatenate([*own, wheels, speed[:, None], sim.qvel[:, 5:6]], 1)


def _towards(sim: Sim, goal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns how far a point (n, 2) is from the front axle (m) and its bearing (rad, left > 0)."""
    axle, heading, *_ = _pose(sim)
    gap = goal - axle
    ahead = gap[:, 0] * heading[:, 0] + gap[:, 1] * heading[:, 1]
    aside = gap[:, 1] * heading[:, 0] - gap[:, 0] * heading[:, 1]
    return np.hypot(ahead, aside), np.arctan2(aside, ahead)


def _bend(far: np.ndarray, bearing: np.ndarray) -> np.ndarray:
    """Returns the steering (n,) in rad with which the front axle's circle meets a point ahead; the
    sharpest that helps for one behind.

    Source: pure pursuit, Coulter 1992; an axle goes round 1 / tan(steer / 2) times its distance
    from the hinge.
    """
    bearing = np.clip(bearing, -np.pi / 2, np.pi / 2)
    curvature = 2 * np.sin(bearing) / np.maximum(far, 1.0)
    most = loader.LIMITS[0][1]
    return np.clip(2 * np.arctan(loader.AXLE * curvature), -most, most)


def _levers(sim: Sim, steer, drive, lift, pitch) -> np.ndarray:
    """Returns actions (n, 4) that bend to `steer` (rad), drive at `drive` (m/s), raise the boom to
    `lift` and the bucket to `pitch` (rad); it drives slowly while it is bent otherwise."""
    now, gain = sim.act, np.array([4.0, 1.0, 3.0, 4.0]) / np.array(loader.VELOCITY)
    off = np.abs(steer - sim.qpos[:, _STEER])
    drive = drive * np.clip(1.6 - 3 * off, 0.1, 1.0)
    tilt = pitch - sim.qpos[:, _STEER + 1]
    out = np.stack([steer - now[:, 0], drive, lift - now[:, 1], tilt - now[:, 2]], 1)
    return np.clip(out * gain, -1, 1)


class LoaderDrive(Task):
    """Drive to the named post; success while the front axle is within 1 m of it."""

    control_dt = 0.1
    time_limit = 15.0
    control = Direct()
    camera = "yard"
    subtasks = ("approach", "hold")
    phrases = ("drive to {}", "go to {}", "drive the loader over to {}")

    def spec(self) -> mujoco.MjSpec:
        s = _yard((-9, -19, 16), (4, 0, 0))
        for name in _POSTS:
            post = s.worldbody.add_body(name=name, mocap=True)
            post.add_geom(
                name=name, type=_G.mjGEOM_CYLINDER, size=(0.15, 1.2, 0), pos=(0, 0, 1.2),
                contype=0, conaffinity=0,
            )  # fmt: skip
        data = _parked(s.compile())
        _rest(data, 2.0)
        s.add_key(name="home", qpos=data.qpos, act=data.act)
        return s

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        points = scene.scatter(rng, 3, (-4, -11), (14, 11), apart=5)
        # none where the loader stands or cannot bend to: its smallest circles are 8.2 m across
        while (np.hypot(points[:, 0] - 1.5, np.abs(points[:, 1]) - 4.2) < 6).any():
            points = scene.scatter(rng, 3, (-4, -11), (14, 11), apart=5)
        sim.mocap_pos[i, :, :2] = points
        colours = rng.permutation(len(NAMES))[:3].tolist()
        which, phrase = rng.random(2)
        which = int(3 * which)
        colours = self.grammar.colours(rng, ("post",) * 3, [which], drawn=colours)
        scene.paint(sim, i, _POSTS, colours)
        sim.userdata[i] = which, self.grammar.phrase(phrase, len(self.phrases)), *colours

    def instruction(self, sim: Sim, i: int) -> str:
        which, phrase, *colours = sim.userdata[i].astype(int)
        things = [(NAMES[c], "post") for c in colours]
        return self.phrases[phrase].format(refer(which, things, form=0))

    def _gap(self, sim: Sim) -> tuple[np.ndarray, np.ndarray]:
        which = sim.userdata[:, _NAMED].astype(int)
        return _towards(sim, scene.pick(sim, sim.mocap_pos, which)[:, :2])

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        """`objects` (n, 12): of the named post, then of the others, its place and its place seen
        from the front axle, ahead and to the left (m)."""
        axle, heading, *_ = _pose(sim)
        posts = scene.order(sim.userdata[:, _NAMED].astype(int), 3)
        places = sim.mocap_pos[sim.rows[:, None], posts][..., :2]
        gap, (x, y) = places - axle[:, None], heading.T[:, :, None]
        seen = [gap[..., 0] * x + gap[..., 1] * y, gap[..., 1] * x - gap[..., 0] * y]
        seen = np.concatenate([places, np.stack(seen, 2)], 2)
        return {"proprio": _proprio(sim), "objects": seen.reshape(sim.n, -1)}

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        far, _ = self._gap(sim)
        return {"near": tolerance(far, 0, 1, 8, "long_tail"), "done": far < 1}

    @staticmethod
    def pay(near, done) -> np.ndarray:
        return np.where(done, 1.0, 0.95 * near)

    def success(self, sim: Sim) -> np.ndarray:
        return self._gap(sim)[0] < 1

    def expert(self, sim: Sim) -> np.ndarray | None:
        """Goes round the circle that leads to the post, and stops on it."""
        far, bearing = self._gap(sim)
        near = far < 1.5
        drive = np.clip(0.8 * far * np.where(near, np.cos(bearing), 1.0), -0.5, 2.8)
        steer = np.where(near, sim.act[:, 0], _bend(far, bearing))
        return _levers(sim, steer, drive, loader.HOME[1], 0.0)

    def label(self, sim: Sim) -> dict[str, np.ndarray]:
        which = sim.userdata[:, _NAMED].astype(np.int32)
        return {"subtask": self.success(sim).astype(np.int32), "target": which}


class ScoopAndDump(Task):
    """Dump gravel into the named hopper; success while 0.7 t or more lie in it."""

    control_dt = 0.1
    time_limit = 30.0
    control = Direct()
    camera = "yard"
    subtasks = ("approach", "scoop", "carry", "dump", "done")
    phrases = (
        "scoop gravel and dump it into {}",
        "load gravel into {}",
        "take a bucket of gravel to {}",
    )

    def spec(self) -> mujoco.MjSpec:
        s = _site()
        piles, servos, places = _settled()
        for k, pile in enumerate(piles):
            s.add_key(name=f"pile{k}", qpos=pile, act=servos, mpos=places)
        return s

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        u = rng.random(15).tolist()  # one draw: calls cost the most
        sim.qpos[i] = sim.model.key_qpos[int(_PILES * u[0])]
        if u[1] < 0.5:  # the pile's mirror image
            sim.qpos[i, _GRAINS + 1 :: 3] *= -1
        yaw = 0.3 * u[2] - 0.15
        sim.qpos[i, :2] = 2 * u[3] - 1.5, u[4] - 0.5
        sim.qpos[i, 3], sim.qpos[i, 6] = math.cos(yaw / 2), math.sin(yaw / 2)
        for k, side in enumerate((1, -1)):
            turn = side * (1.0 + 0.3 * u[5 + k])
            sim.mocap_pos[i, k, :2] = 5 + u[7 + k], side * (6 + u[9 + k])
            sim.mocap_quat[i, k] = math.cos(turn / 2), 0, 0, math.sin(turn / 2)
        first = int(len(NAMES) * u[11])
        second = (first + 1 + int((len(NAMES) - 1) * u[12])) % len(NAMES)
        choice, phrases = int(6 * u[13]), len(self.phrases)
        which, shapes = choice % 2, ("hopper", "hopper")
        looks = self.grammar.colours(rng, shapes, [which], drawn=(first, second))
        for name, colour in zip(_HOPPERS, looks, strict=True):
            scene.paint(sim, i, tuple(f"{name}_{part}" for part in _PARTS), [colour] * 4)
        phrase = self.grammar.phrase((choice // 2 + 0.5) / phrases, phrases)
        sim.userdata[i] = which, phrase, int(2 * u[14]), *looks

    def instruction(self, sim: Sim, i: int) -> str:
        which, phrase, form, *colours = sim.userdata[i].astype(int)
        things = [(NAMES[c], "hopper") for c in colours]
        return self.phrases[phrase].format(refer(which, things, form))

    def _grains(self, sim: Sim) -> np.ndarray:
        return sim.qpos[:, _GRAINS:].reshape(sim.n, _COUNT, 3)

    def _loaded(self, sim: Sim) -> np.ndarray:
        """Returns how many grains (n,) lie in the bucket."""
        seen = self._grains(sim) - sim.site("bucket")[:, None]
        own = np.einsum("nki,nij->nkj", seen, sim.turn("bucket").reshape(-1, 3, 3))
        return ((own > loader.LOW) & (own < loader.HIGH)).all(2).sum(1)

    def _delivered(self, sim: Sim) -> np.ndarray:
        """Returns how many grains (n, 2) lie in each hopper."""
        grains, half = self._grains(sim), sim.mocap_quat
        cosine = half[..., 0] ** 2 - half[..., 3] ** 2
        sine = 2 * half[..., 0] * half[..., 3]
        gap = grains[:, :, None, :2] - sim.mocap_pos[:, None, :, :2]  # (n, grains, hoppers, 2)
        x = gap[..., 0] * cosine[:, None] + gap[..., 1] * sine[:, None]
        y = gap[..., 1] * cosine[:, None] - gap[..., 0] * sine[:, None]
        within = (np.abs(x) < _WITHIN[0]) & (np.abs(y) < _WITHIN[1])
        return (within & (grains[:, :, None, 2] < _WALL)).sum(1)

    def _judge(self, sim: Sim) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the named hopper's place (n, 2), the grains in it and in the bucket (n,)."""
        which = sim.userdata[:, _NAMED].astype(int)
        place = scene.pick(sim, sim.mocap_pos, which)[:, :2]
        return place, self._delivered(sim)[sim.rows, which], self._loaded(sim)

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        """`objects` (n, 14): of the named hopper, then of the other, its place, place seen from the
        bucket's edge (m), cosine and sine of its direction; the tonnes in the first and in the
        bucket. `gravel` (n, 144): every grain's place seen from the edge (m)."""
        which, edge = sim.userdata[:, _NAMED].astype(int), sim.site("tcp")
        rows, both = sim.rows[:, None], scene.order(which, 2)
        places = sim.mocap_pos[rows, both][..., :2]
        turns = sim.mocap_quat[rows, both]
        turns = np.stack(
            [turns[..., 0] ** 2 - turns[..., 3] ** 2, 2 * turns[..., 0] * turns[..., 3]], 2
        )
        things = np.concatenate([places, places - edge[:, None, :2], turns], 2)
        _, there, loaded = self._judge(sim)
        tonnes = np.stack([there, loaded], 1) * (_MASS / 1000)
        return {
            "proprio": _proprio(sim),
            "objects": np.concatenate([things.reshape(sim.n, -1), tonnes], 1),
            "gravel": (self._grains(sim) - edge[:, None]).reshape(sim.n, -1),
        }

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        """`there`, `loaded`: shares of what is asked for, in the hopper and in the bucket; `near`:
        the bucket is at the pile; `over`: at the hopper; `high`: above its wall."""
        place, there, loaded = self._judge(sim)
        edge = sim.site("tcp")
        pile = np.tile((_BACK - 1.0, 0.0), (sim.n, 1))
        return {
            "there": np.minimum(there / _ASKED, 1.0),
            "loaded": np.minimum(loaded / _ASKED, 1.0),
            "near": tolerance(distance(edge[:, :2], pile), 0, 0.5, 6, "long_tail"),
            "over": tolerance(distance(edge[:, :2], place), high=0.8, margin=6, shape="long_tail"),
            "high": tolerance(edge[:, 2], low=2.2, high=np.inf, margin=2, shape="linear"),
        }

    @staticmethod
    def pay(there, loaded, near, over, high) -> np.ndarray:
        carried = loaded * (0.3 + 0.1 * high + 0.3 * over)
        paid = 0.9 * there + (1 - there) * np.maximum(carried, 0.15 * near)
        return np.where(there >= 1, 1.0, paid)

    def success(self, sim: Sim) -> np.ndarray:
        return self._judge(sim)[1] >= _ASKED

    def expert(self, sim: Sim) -> np.ndarray | None:
        """Drives in, curls, backs out, turns by backing, drives on and tips, by what it sees."""
        place, there, loaded = self._judge(sim)
        axle, _, speed, pitch = _pose(sim)
        edge, lift = sim.site("tcp"), sim.qpos[:, _STEER + 1]
        down, up = loader.HOME[1], 0.70
        far, bearing = _towards(sim, place)
        at_hopper = (far < 3.2) & (np.abs(bearing) < 0.5)
        tipping = at_hopper & (lift > 0.5) & (edge[:, 2] > _WALL)
        full = (loaded >= _FULL) | ((loaded > _ASKED) & (edge[:, 0] < 7.5))
        carry = full & (pitch > 0.5)
        inside = edge[:, 0] > _MOUTH + 0.3
        deep = (edge[:, 0] > _BACK - 0.35) | ((edge[:, 0] > 8.0) & (speed < 0.4))
        curl = inside & (deep | (pitch > 0.15)) & (pitch < 0.75)
        out = ~full & inside & (pitch >= 0.75)
        # along the middle of the bay
        lane = np.stack([axle[:, 0] + 3.5, np.zeros(sim.n)], 1)
        ahead = _bend(*_towards(sim, lane))
        onward = (np.abs(bearing) < 0.25) | ((speed > 0.1) & (np.abs(bearing) < 0.8))
        back = carry & ~onward
        swing = np.where(axle[:, 0] < 4.6, -0.69 * np.sign(bearing), 0.0)
        close = np.clip(1.2 * (far - 2.05), -0.5, 2.2)
        case = [tipping | (there >= _ASKED), back, carry, curl, out]
        steer = np.select(case, [_bend(far, bearing), swing, _bend(far, bearing), 0, 0], ahead)
        fast = np.where(edge[:, 0] > 7.3, 2.8, np.clip(2.4 - 4 * np.abs(pitch), 0, 2.4))
        drive = np.select(case, [close, -1.8, close, 2.0 * (pitch < 0.6), -1.5], fast)
        raised = np.select(case[:4], [up, up, up, down + 0.5 * np.clip(pitch, 0, 0.5)], down)
        tilt = np.select(case, [-0.85, 0.8, 0.75, 0.85, 0.85], 0.0)
        return _levers(sim, steer, drive, raised, tilt)

    def label(self, sim: Sim) -> dict[str, np.ndarray]:
        place, there, loaded = self._judge(sim)
        edge = sim.site("tcp")
        over = distance(edge[:, :2], place) < 1.6
        case = [there >= _ASKED, over & (loaded + there > 0), loaded >= _ASKED]
        case += [edge[:, 0] > _MOUTH + 0.3]
        return {
            "subtask": np.select(case, [4, 3, 2, 1], 0).astype(np.int32),
            "target": sim.userdata[:, _NAMED].astype(np.int32),
            "delivered": (there * _MASS).astype(np.float32),
        }
