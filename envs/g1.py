"""G1: Unitree's humanoid stands against pushes, walks, touches what the words name with one hand.

An episode ends where it has fallen.
"""

from __future__ import annotations

import math
from abc import ABC

import mujoco
import numpy as np

from ..robots import g1
from ..robots.action import ActionSpec, Component
from . import ground, legs, scene
from .control import Control
from .language import NAMES, refer
from .rewards import distance, tolerance
from .sim import Sim
from .task import Task

_HIGH = 0.675  # m of the centre of mass above the ground, as it stands at home
_HANDS = ("left", "right")
_BALLS = ("ball", "ball2", "ball3")
_ARMS = [[g1.JOINTS.index(j) for j in arm] for arm in (g1.LEFT_ARM, g1.RIGHT_ARM)]
_UPPER = 7 + 12  # where the joints above the legs begin in qpos; the soles start flat
_REACH = 0.04  # m: a palm so near to a ball's middle touches it
_SHOVE, _LASTS = (25.0, 60.0), 0.1  # N, s


def _scales() -> np.ndarray:
    words = {"ankle": 0.8, "hip": 0.6, "knee": 0.6, "waist": 0.4, "wrist": 0.8}
    return np.array([next((v for k, v in words.items() if k in j), 1.2) for j in g1.JOINTS])


class _Servos(Control):
    """Each component is a joint's target: home, and up to `_scales` rad beside it."""

    scale, home = _scales(), np.array(g1.HOME)

    def spec(self, model: mujoco.MjModel, rate: float) -> ActionSpec:
        numbers = zip(g1.JOINTS, self.scale.tolist(), self.home.tolist(), strict=True)
        return ActionSpec(tuple(Component(j, "joint", "rad", s, h) for j, s, h in numbers), rate)

    def apply(self, sim: Sim, action: np.ndarray) -> None:
        sim.ctrl[:] = np.clip(self.home + self.scale * action, sim.ctrl_low, sim.ctrl_high)

    def towards(self, target: np.ndarray) -> np.ndarray:
        """Returns the actions whose targets are these, `(n, 29)` rad."""
        return (target - self.home) / self.scale


class _Shoved(_Servos):
    """Pushes the chest when the row's userdata says so: (s, N along x, N along y) a time."""

    def apply(self, sim: Sim, action: np.ndarray) -> None:
        super().apply(sim, action)
        chest = sim.once("chest", lambda: sim.model.body("waist_pitch").id)
        plan = sim.userdata[:, 1:].reshape(sim.n, -1, 3)
        since = sim.time.reshape(sim.n, 1) - plan[..., 0]
        now = (since > -1e-9) & (since < _LASTS - 1e-9)
        sim.xfrc_applied[:, chest, :2] = (now[..., None] * plan[..., 1:]).sum(1)


class _G1(Task, ABC):
    """What the tasks share: the ground, the senses, what counts as fallen."""

    control_dt = 0.02
    control = _Servos()
    camera = "side"

    def _lay(self, memory: int) -> mujoco.MjSpec:
        s = ground.lay(g1.spec(), timestep=0.004, memory=memory, square=0.5)
        legs.sense(s)
        eye = (1.9, -1.6, 1.25)
        s.worldbody.add_camera(
            name="side", pos=eye, quat=ground.looking(eye, (0.1, 0, 0.68)), fovy=38
        )
        return s

    def _close(self, s: mujoco.MjSpec) -> mujoco.MjSpec:
        s.add_key(name="home", qpos=g1.home(), ctrl=g1.HOME)
        return s

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        """`proprio` (n, 72): joints (rad) beside home and their speeds (rad/s), the upward
        direction (3) seen from the pelvis, its turning (3; rad/s), the drift of the centre of mass
        (3; m/s) and its height (m) and place from between the feet (2; m), seen from the pelvis's
        heading, and where that is (cosine, sine)."""
        v = legs.views(sim)
        ahead = legs.heading(v)
        drift = legs.turned(v.drift[:, :2], ahead, back=True)
        place = legs.turned(v.com[:, :2] - v.feet[:, :, :2].mean(1), ahead, back=True)
        rest = [v.pelvis[:, 6:], v.spin, drift, v.drift[:, 2:], v.com[:, 2:], place, ahead]
        return {"proprio": np.concatenate([v.q - legs.HOME, v.dq, *rest], 1)}

    def terminated(self, sim: Sim) -> np.ndarray:
        v = legs.views(sim)
        return (v.com[:, 2] < 0.45) | (v.pelvis[:, 8] < 0.5)

    def _upright(self, sim: Sim) -> np.ndarray:
        """Returns how well it stands `(n,)`, 0 to 1: high, and the pelvis level."""
        v = legs.views(sim)
        high = tolerance(v.com[:, 2], _HIGH - 0.05, np.inf, 0.2, "linear")
        return high * tolerance(v.pelvis[:, 8], 0.97, 1.01, 0.5, "linear")


class G1Stand(_G1):
    """Stand still, whatever pushes; success while it stands upright and hardly moves.

    Three pushes of 2.5 to 6 Ns, from anywhere. The script keeps its feet where they are: by three
    of 6 to 8 Ns it fell in 4 of 20 episodes.
    """

    time_limit = 10.0
    control = _Shoved()
    good = 0.95
    subtasks = ("recover", "stand")
    phrases = ("stand still", "keep your balance", "stay on your feet")

    def spec(self) -> mujoco.MjSpec:
        return self._close(self._lay(memory=10))

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        sim.qpos[i, _UPPER:] += rng.uniform(-0.06, 0.06, len(g1.JOINTS) - 12)
        u = rng.random(12).tolist()
        way, fast = 2 * math.pi * u[0], 0.12 + 0.06 * u[1]
        sim.qvel[i, :2] = fast * math.cos(way), fast * math.sin(way)
        plan = [int(len(self.phrases) * u[2])]
        for k in range(3):  # the last leaves three seconds to recover in
            way, hard = 2 * math.pi * u[3 + k], _SHOVE[0] + (_SHOVE[1] - _SHOVE[0]) * u[6 + k]
            plan += [1.5 + 2 * k + u[9 + k], hard * math.cos(way), hard * math.sin(way)]
        sim.userdata[i] = plan

    def instruction(self, sim: Sim, i: int) -> str:
        return self.phrases[int(sim.userdata[i, 0])]

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        drift = legs.views(sim).drift
        slow = tolerance(np.sqrt((drift**2).sum(1)), 0, 0.02, 0.4, "long_tail")
        return {"upright": self._upright(sim), "slow": slow}

    @staticmethod
    def pay(upright, slow) -> np.ndarray:
        good = upright * (0.3 + 0.7 * slow)
        return np.where(good > 0.9, 0.96 + 0.4 * (good - 0.9), good)

    def expert(self, sim: Sim) -> np.ndarray | None:
        """Presses with its feet where the capture point is, and a little beyond."""
        return self.control.towards(legs.standing(legs.views(sim), _HIGH))

    def label(self, sim: Sim) -> dict[str, np.ndarray]:
        return {"subtask": self.success(sim).astype(np.int32)}


class G1Walk(_G1):
    """Walk ahead as fast as the words say; success while it walks where it should be by now.

    The speeds are modest: a scripted gait does them. At 0.4 m/s that stays up but falls 0.26 m
    behind, at 0.5 m/s it fell in 5 of 16 episodes. Within 0.2 m of the place that goes ahead at the
    speed asked for, from where it stood, it is where it should be; the first second counts for
    nothing.
    """

    time_limit = 8.0
    camera = "track"
    subtasks = ("start", "walk")
    phrases = ("walk ahead at {} m/s", "go forward at {} m/s", "walk straight on, {} m/s fast")
    speeds = (0.1, 0.2, 0.3)

    def spec(self) -> mujoco.MjSpec:
        s = self._lay(memory=2)
        eye = (1.0, -2.6, 0.4)
        quat = ground.looking(eye, (0, 0, 0))
        s.body("base").add_camera(
            name="track", pos=eye, quat=quat, fovy=40, mode=mujoco.mjtCamLight.mjCAMLIGHT_TRACKCOM
        )
        return self._close(s)

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        sim.qpos[i, _UPPER:] += rng.uniform(-0.06, 0.06, len(g1.JOINTS) - 12)
        sim.qvel[i, :2] = rng.uniform(-0.1, 0.1, 2)
        sim.userdata[i] = [int(3 * u) for u in rng.random(2)]

    def instruction(self, sim: Sim, i: int) -> str:
        which, phrase = sim.userdata[i].astype(int)
        return self.phrases[phrase].format(self.speeds[which])

    def _gap(self, sim: Sim) -> tuple[np.ndarray, np.ndarray]:
        """Returns the speed asked for (n,) and where it should be from where it is (n, 2)."""
        speed = np.array(self.speeds)[sim.userdata[:, 0].astype(int)]
        gap = -legs.views(sim).com[:, :2]
        gap[:, 0] += 0.027 + speed * sim.time.reshape(sim.n)
        return speed, gap

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        """`objects` (n, 3): the speed asked for (m/s), and where it should be by now, from the
        centre of mass (m). `clock` (n, 2): cosine and sine of the time in `legs.STEP`'s pairs."""
        speed, gap = self._gap(sim)
        turn = np.pi * sim.time.reshape(sim.n) / legs.STEP
        clock = np.stack([np.cos(turn), np.sin(turn)], 1)
        objects = np.concatenate([speed[:, None], gap], 1)
        return super().observe(sim) | {"objects": objects, "clock": clock}

    def success(self, sim: Sim) -> np.ndarray:
        _, gap = self._gap(sim)
        there = np.sqrt((gap**2).sum(1)) < 0.2
        late = sim.time.reshape(sim.n) > 1
        return there & late & (self._upright(sim) > 0.5)

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        _, gap = self._gap(sim)
        near = tolerance(np.sqrt((gap**2).sum(1)), 0, 0.05, 0.8, "long_tail")
        return {"upright": self._upright(sim), "near": near, "done": self.success(sim)}

    @staticmethod
    def pay(upright, near, done) -> np.ndarray:
        paid = upright * near
        return np.where(done, 0.96 + 0.04 * paid, 0.9 * paid)

    def expert(self, sim: Sim) -> np.ndarray | None:
        """Steps by the clock, each where the capture point asks for it."""
        speed, gap = self._gap(sim)
        ahead = np.clip(1.1 * speed + 0.8 * gap[:, 0], 0.0, 0.5)
        wish = np.stack([ahead, np.clip(0.4 * gap[:, 1], -0.08, 0.08)], 1)
        face = np.tile((1.0, 0.0), (sim.n, 1))
        time = sim.time.reshape(sim.n)
        return self.control.towards(legs.walking(legs.views(sim), time, wish, face))

    def label(self, sim: Sim) -> dict[str, np.ndarray]:
        speed, _ = self._gap(sim)
        walks = self.success(sim).astype(np.int32)
        return {"subtask": walks, "speed": speed.astype(np.float32)}


class G1Reach(_G1):
    """Touch the named ball with the named palm, standing; success within 4 cm of its middle."""

    time_limit = 5.0
    subtasks = ("approach", "touch")
    phrases = (
        "touch {} with your {} hand",
        "reach for {} with your {} hand",
        "put your {1} hand on {0}",
    )

    def spec(self) -> mujoco.MjSpec:
        s = self._lay(memory=7)
        for name in _BALLS:
            scene.add_marker(s, name, "ball", 0.03)
        return self._close(s)

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        sim.qpos[i, _UPPER:] += rng.uniform(-0.06, 0.06, len(g1.JOINTS) - 12)
        low, high = (0.22, -0.15, 0.75), (0.32, 0.15, 1.03)
        sim.mocap_pos[i] = scene.scatter(rng, 3, low, high, apart=0.13)
        colours = rng.permutation(len(NAMES))[:3].tolist()
        ball, hand, phrase, form = rng.random(4)
        ball = int(3 * ball)
        colours = self.grammar.colours(rng, ("ball",) * 3, [ball], drawn=colours)
        scene.paint(sim, i, _BALLS, colours)
        said = self.grammar.phrase(phrase, len(self.phrases)), int(2 * form)
        sim.userdata[i] = [ball, int(2 * hand), *said, *colours]

    def instruction(self, sim: Sim, i: int) -> str:
        ball, hand, phrase, form, *colours = sim.userdata[i].astype(int)
        what = refer(ball, [(NAMES[c], "ball") for c in colours], form)
        return self.phrases[phrase].format(what, _HANDS[hand])

    def _palms(self, sim: Sim) -> np.ndarray:
        first = sim.once("palms", lambda: sim.model.site("left_palm").id)
        return sim.site_xpos[:, first : first + 2]

    def _goal(self, sim: Sim) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns which hand is named (n,), its palm and the named ball (n, 3), in m."""
        ball, hand = sim.userdata[:, 0].astype(int), sim.userdata[:, 1].astype(int)
        palm = scene.pick(sim, self._palms(sim), hand)
        return hand, palm, scene.pick(sim, sim.mocap_pos, ball)

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        """`objects` (n, 22): which hand (1 left, -1 right), the palms' places (m), named first, the
        named ball's place and its place from the named palm, and the others' (m). Places are seen
        from the pelvis, along the world's axes."""
        ball, hand = sim.userdata[:, 0].astype(int), sim.userdata[:, 1].astype(int)
        rows, base = sim.rows[:, None], sim.body("base")[:, None]
        palms = (self._palms(sim) - base)[rows, scene.order(hand, 2)]
        balls = (sim.mocap_pos - base)[rows, scene.order(ball, 3)]
        own = [1.0 - 2.0 * hand[:, None], palms.reshape(sim.n, -1), balls.reshape(sim.n, -1)]
        gaps = (balls[:, :2] - palms[:, :1]).reshape(sim.n, -1)
        return super().observe(sim) | {"objects": np.concatenate([*own, gaps], 1)}

    def success(self, sim: Sim) -> np.ndarray:
        _, palm, ball = self._goal(sim)
        return (distance(palm, ball) < _REACH) & ~self.terminated(sim)

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        _, palm, ball = self._goal(sim)
        near = tolerance(distance(palm, ball), 0, _REACH, 0.3, "long_tail")
        return {"upright": self._upright(sim), "near": near, "done": self.success(sim)}

    @staticmethod
    def pay(upright, near, done) -> np.ndarray:
        paid = upright * (0.2 + 0.7 * near)
        return np.where(done, 0.96 + 0.04 * upright, paid)

    def expert(self, sim: Sim) -> np.ndarray | None:
        """Keeps its balance while the arm's inverse kinematics lead the palm."""
        v = legs.views(sim)
        target = legs.standing(v, _HIGH)
        hand, palm, ball = self._goal(sim)
        step = np.clip(ball - palm, -0.06, 0.06)
        joints = np.array(_ARMS)[hand]  # (n, 7)
        rows = sim.rows[:, None]
        q, axis = v.q[rows, joints], v.axis[rows, joints]
        jacobian = np.cross(axis, palm[:, None] - v.anchor[rows, joints])  # (n, 7, 3)
        rest = 0.05 * (legs.HOME[joints] - q)
        left = step - (jacobian * rest[..., None]).sum(1)
        square = jacobian.transpose(0, 2, 1) @ jacobian + 0.003 * np.eye(3)
        move = rest + (jacobian @ np.linalg.solve(square, left[..., None]))[..., 0]
        hold = v.bias[rows, joints] / legs.STIFFNESS[joints]
        target[rows, joints] = q + hold + np.clip(move, -0.25, 0.25)
        return self.control.towards(target)

    def label(self, sim: Sim) -> dict[str, np.ndarray]:
        return {
            "subtask": self.success(sim).astype(np.int32),
            "target": sim.userdata[:, 0].astype(np.int32),
            "hand": sim.userdata[:, 1].astype(np.int32),
        }
