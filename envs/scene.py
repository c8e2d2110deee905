"""Scene: a table, a light, a camera and an arm, and the things that tasks put on the table."""

from __future__ import annotations

import math

import mujoco
import numpy as np

from ..robots.body import Body
from .control import HIGH, LOW  # noqa: F401 (where the tool may go, of the scene's own)
from .language import RGBA
from .rewards import distance, tolerance
from .sim import Sim

TIMESTEP = 0.005  # s
_COLUMNS = [0, 3, 6, 1, 4, 7]  # of a rotation matrix, row by row: its first two columns
ARMS = ("arm", "so101", "ur5e", "ur10e", "panda", "fr3")  # those that do what tabletop tasks ask
_ORDERS = {  # by count, then by which is first
    k: np.array([[i, *(j for j in range(k) if j != i)] for i in range(k)]) for k in (2, 3)
}
_G, _T, _B = mujoco.mjtGeom, mujoco.mjtTexture, mujoco.mjtBuiltin
_SHAPE = {"ball": _G.mjGEOM_SPHERE, "cube": _G.mjGEOM_BOX, "cylinder": _G.mjGEOM_CYLINDER}


def tabletop(body: Body, memory: int) -> mujoco.MjSpec:
    """Returns an arm at a table whose top is z = 0, with `memory` userdata numbers.

    Mocap body 0 is `command`, the tool's goal; cameras are `front` and `wrist`. Add furniture
    (what has joints of its own) before objects, and call `finish` last.
    """
    s = body.spec()
    s.body("base").pos = body.mount
    stage(s, memory, -0.4, (0.2, -0.7, 1.8), (0.1, 0.35, -0.9))
    world = s.worldbody
    world.add_geom(
        name="table", type=_G.mjGEOM_BOX, size=(0.42, 0.45, 0.02), pos=(0.30, 0, -0.02),
        rgba=(0.72, 0.60, 0.46, 1), contype=1, conaffinity=3, friction=(0.6, 0.005, 0.001),
    )  # fmt: skip
    add_stand(s, body.mount)
    # From beyond the table's far edge, looking back and down at the arm's workspace.
    world.add_camera(
        name="front", pos=(1.2, 0, 0.66), fovy=46, quat=(0.6272, 0.3265, 0.3265, 0.6272)
    )
    world.add_body(name="command", mocap=True)
    return s


def add_stand(s: mujoco.MjSpec, mount: tuple[float, float, float], prefix: str = "") -> None:
    """Adds what an arm mounted there (m) stands on, if it does not stand on the table itself."""
    x, y, z = mount
    ground = 0.0 if abs(x - 0.30) <= 0.42 and abs(y) <= 0.45 else -0.4
    if z > ground:
        s.worldbody.add_geom(
            name=f"{prefix}stand", type=_G.mjGEOM_BOX, size=(0.06, 0.06, (z - ground) / 2),
            pos=(x, y, (z + ground) / 2), rgba=(0.55, 0.56, 0.58, 1), contype=1, conaffinity=3,
        )  # fmt: skip


def stage(s: mujoco.MjSpec, memory: int, ground: float, lamp, shines) -> None:
    """Gives a body's spec the physics of our scenes, `memory` userdata numbers, a floor and light.

    ground: the floor's height, m. lamp: its place, m, and the direction in which it shines.
    """
    s.option.timestep = TIMESTEP
    s.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    s.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    s.option.impratio = 10  # friction that holds what the fingers grasp
    s.memory = 2**21  # bytes; the engine's default reserves far more for every simulation
    s.nuserdata = memory
    s.visual.headlight.ambient = (0.35, 0.35, 0.35)
    s.visual.headlight.diffuse = (0.35, 0.35, 0.35)
    world = s.worldbody
    world.add_light(
        name="lamp",
        pos=lamp,
        dir=shines,
        diffuse=(0.6, 0.6, 0.6),
        castshadow=1,
    )
    s.add_texture(
        name="floor", type=_T.mjTEXTURE_2D, builtin=_B.mjBUILTIN_CHECKER,
        rgb1=(0.30, 0.34, 0.38), rgb2=(0.38, 0.42, 0.46), width=64, height=64,
    )  # fmt: skip
    s.add_texture(
        name="sky", type=_T.mjTEXTURE_SKYBOX, builtin=_B.mjBUILTIN_GRADIENT,
        rgb1=(0.75, 0.82, 0.90), rgb2=(0.35, 0.45, 0.55), width=64, height=384,
    )  # fmt: skip
    floor = s.add_material(name="floor", texrepeat=(2, 2), texuniform=True)
    floor.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "floor"
    world.add_geom(
        name="floor", type=_G.mjGEOM_PLANE, size=(0, 0, 1), pos=(0, 0, ground), material="floor",
        contype=1, conaffinity=3,
    )  # fmt: skip


def add_marker(s: mujoco.MjSpec, name: str, shape: str, size: float) -> None:
    """Adds a coloured shape that nothing collides with, as a mocap body of half size `size` m."""
    body = s.worldbody.add_body(name=name, mocap=True)
    body.add_geom(name=name, type=_SHAPE[shape], size=(size,) * 3, contype=0, conaffinity=0)


def add_disc(s: mujoco.MjSpec, name: str, radius: float) -> None:
    """Adds a flat coloured disc on the table, a mocap body that nothing collides with."""
    body = s.worldbody.add_body(name=name, mocap=True)
    body.add_geom(
        name=name, type=_G.mjGEOM_CYLINDER, size=(radius, 0.001, 0), pos=(0, 0, 0.001),
        contype=0, conaffinity=0,
    )  # fmt: skip


def add_object(
    s: mujoco.MjSpec, name: str, shape: str, size: float | tuple[float, ...], mass: float
) -> None:
    """Adds a free object of half size `size` m (or MuJoCo's three), which fingers can sense."""
    size = (size,) * 3 if isinstance(size, float) else size
    body = s.worldbody.add_body(name=name, pos=(0.4, 0, size[1 if shape == "cylinder" else 2]))
    body.add_freejoint(name=name)
    body.add_geom(
        name=name, type=_SHAPE[shape], size=size, mass=mass, friction=(0.6, 0.005, 0.001),
        condim=6 if shape == "cylinder" else 4, contype=1, conaffinity=3,
    )  # fmt: skip
    add_touch(s, name)


def add_touch(s: mujoco.MjSpec, geom: str, prefix: str = "") -> None:
    """Adds two sensors, of whether the arm's left and right finger touch the geom (`touched`)."""
    for finger in ("left", "right"):
        s.add_sensor(
            name=f"{prefix}{finger}-{geom}", type=mujoco.mjtSensor.mjSENS_CONTACT,
            objtype=mujoco.mjtObj.mjOBJ_GEOM, objname=prefix + finger,
            reftype=mujoco.mjtObj.mjOBJ_GEOM, refname=geom, intprm=(1, 0, 1),
        )  # fmt: skip


def finish(s: mujoco.MjSpec, body: Body, arms: int = 1) -> mujoco.MjSpec:
    """Returns the spec with its first keyframe: its arms at home, the things where they were put.

    The arms, of one kind, are the first in qpos and among the actuators.
    """
    model = s.compile()
    data = mujoco.MjData(model)
    data.qpos[: arms * len(body.home)] = body.home * arms
    ctrl = [*body.home[: len(body.joints)], body.jaws[1]] * arms
    ctrl += [0] * (model.nu - len(ctrl))
    s.add_key(
        name="home",
        qpos=data.qpos,
        ctrl=ctrl,
        mpos=data.mocap_pos.ravel(),
        mquat=data.mocap_quat.ravel(),
    )
    return s


def scatter(rng: np.random.Generator, count: int, low, high, apart: float) -> np.ndarray:
    """Draws points uniformly in a box, pairwise at least `apart` m apart, `(count, d)`."""
    low, high = np.asarray(low), np.asarray(high)
    for _ in range(20):  # the first points may leave no room for the last: then all are drawn anew
        placed: list[list[float]] = []
        for _ in range(100):  # plain floats: a row's reset is too small for arrays
            for point in (low + (high - low) * rng.random((16, len(low)))).tolist():
                if all(math.dist(point, other) >= apart for other in placed):
                    placed.append(point)
                    if len(placed) == count:
                        return np.array(placed)
    raise ValueError(f"no room for {count} points {apart} m apart between {low} and {high}")


def paint(sim: Sim, i: int, names: tuple[str, ...], colours: np.ndarray) -> None:
    """Gives row i's geoms, by name, the palette colours with the indices `colours`."""
    rgba = sim.vary("geom_rgba")
    for name, colour in zip(names, colours, strict=True):
        rgba[i, sim.model.geom(name).id] = RGBA[int(colour)]


def proprio(sim: Sim, body: Body, prefix: str = "") -> np.ndarray:
    """Returns the arm's own senses `(n, 2 joints + 6)`: joint positions (rad, jaws m or rad),
    velocities (/s), tool position (3; m), and how far the command is ahead of it (3; m)."""
    q, v, command = sim.once(("arm", prefix), lambda: _arm(sim, body, prefix))
    tip = sim.site(prefix + "tcp")
    ahead = sim.mocap_pos[:, command] - tip
    return np.concatenate([sim.qpos[:, q], sim.qvel[:, v], tip, ahead], 1)


def _arm(sim: Sim, body: Body, prefix: str) -> tuple[slice, slice, int]:
    """Returns where an arm's joints are in qpos and qvel, and which mocap body commands it."""
    first, k = sim.model.joint(prefix + body.joints[0]), len(body.home)
    q, v = int(first.qposadr[0]), int(first.dofadr[0])
    command = int(sim.model.body(prefix + "command").mocapid[0])
    return slice(q, q + k), slice(v, v + k), command


def _free(sim: Sim) -> tuple[slice, slice, slice]:
    """Returns where the free objects are in qpos, qvel and among bodies: one block in each.

    A robot's own free joint is called `base` and is no object.
    """
    m = sim.model
    free = np.flatnonzero(m.jnt_type == int(mujoco.mjtJoint.mjJNT_FREE))
    free = [j for j in free if m.joint(j).name != "base"]
    if not free:
        return slice(0, 0), slice(0, 0), slice(0, 0)
    q, v, b = (int(x[free[0]]) for x in (m.jnt_qposadr, m.jnt_dofadr, m.jnt_bodyid))
    k = len(free)
    return slice(q, q + 7 * k), slice(v, v + 6 * k), slice(b, b + k)


def objects(sim: Sim) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the free objects' positions (m), axes and linear velocities (m/s).

    Shapes `(n, objects, 3)`, `(n, objects, 6)` (the first two columns of the rotation matrix),
    `(n, objects, 3)`, in the order they were added.
    """
    places, speeds, bodies = sim.once("free", lambda: _free(sim))
    q = sim.qpos[:, places].reshape(sim.n, -1, 7)
    v = sim.qvel[:, speeds].reshape(sim.n, -1, 6)
    return q[..., :3], sim.xmat[:, bodies, _COLUMNS], v[..., :3]


def place(sim: Sim, i: int, which: int, xy: np.ndarray, yaw: float) -> None:
    """Puts row i's object number `which` on the table, at rest, turned by yaw (rad)."""
    start = sim.once("free", lambda: _free(sim))[0].start
    q = sim.qpos[i, start + 7 * which :]
    q[:2] = xy
    q[3], q[6] = math.cos(yaw / 2), math.sin(yaw / 2)


def weigh(sim: Sim, i: int, name: str, factor: float) -> None:
    """Makes row i's object `factor` times as heavy as its model says."""
    body = sim.model.body(name).id
    sim.vary("body_mass")[i, body] = sim.model.body_mass[body] * factor
    sim.vary("body_inertia")[i, body] = sim.model.body_inertia[body] * factor


def _touch(sim: Sim, prefix: str) -> slice:
    """Returns where the touch sensors of an arm are in the readings: one block."""
    at = [
        int(sim.model.sensor_adr[k])
        for k in range(sim.model.nsensor)
        if sim.model.sensor(k).name.startswith((f"{prefix}left-", f"{prefix}right-"))
    ]
    return slice(min(at), max(at) + 1) if at else slice(0, 0)


def touched(sim: Sim, prefix: str = "") -> np.ndarray:
    """Returns `(n, things, 2)` bool: which fingers (left, right) touch which thing with sensors."""
    found = sim.sensordata[:, sim.once(("touch", prefix), lambda: _touch(sim, prefix))]
    return (found > 0).reshape(sim.n, -1, 2)


def opening(sim: Sim, body: Body, prefix: str = "") -> np.ndarray:
    """Returns how far the jaws are open `(n,)`, 0 closed to 1 open, by the first jaw's joint."""
    closed, opened = body.jaws
    q, *_ = sim.once(("arm", prefix), lambda: _arm(sim, body, prefix))
    return (sim.qpos[:, q.start + len(body.joints)] - closed) / (opened - closed)


def jaws(sim: Sim) -> np.ndarray:
    """Returns where the middle between the fingers is, seen from the tool, `(n, 2)` m along x, y.

    Jaws of which one does not move close beside `tcp`.
    """
    return (sim.geom("left") + sim.geom("right"))[:, :2] / 2 - sim.site("tcp")[:, :2]


def nearness(sim: Sim, goal: np.ndarray, high: float = 0.02) -> np.ndarray:
    """Returns how near the tool is to places (n, 3), `(n,)`: 1 within `high` m, less beyond."""
    return tolerance(distance(sim.site("tcp"), goal), high=high, margin=0.2, shape="long_tail")


def pick(sim: Sim, stack: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Returns stack[i, index[i]] of `(n, things, d)` for every row, `(n, d)`."""
    return stack[sim.rows, index]


def order(first: np.ndarray, count: int) -> np.ndarray:
    """Returns indices `(n, count)`: first[i], then the other things in their own order (2 or 3)."""
    return _ORDERS[count][first]
