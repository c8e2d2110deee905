"""CarryTogether: two arms lift one long bar by its two posts and hold it where the words say."""

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

_PHRASES = ("carry the bar to {}", "hold the bar at {} together", "lift the bar up to {}")
_GOALS = ("goal", "goal2")
_POSTS = ("post", "post2")  # the left arm's, the right one's
_BAR = (0.02, 0.25, 0.012)  # m: half its size; it lies along y, too long for one arm to hold level
_SPAN, _POST = 0.20, 0.024  # m: from the middle to each post, half a post's height
_HIGH = _BAR[2] + 0.03  # m: where a post is held, above the bar's middle
_NEAR = 0.03  # m that both ends may be from where they shall be
_HOVER, _STEP = 0.07, 0.03  # m above a post; m that the bar is led ahead
_SIDES = np.array([1.0, -1.0])


class CarryTogether(Team):
    """Two coloured outlines float above a table; the bar is to be held in the named one.

    `proprio` (n, 2 p): the left arm's, the right arm's. `objects` (n, 39): the bar's place (m), two
    axes, velocity (m/s); its posts' places, seen from the tool next to each (6) and as they are
    (6); where the posts shall be (6), seen from where they are (6); the other outline's place.
    """

    control_dt = 0.1
    time_limit = 6.0
    robots = ("arm", "ur5e", "ur10e", "panda", "fr3")  # the script fails with SO-101
    camera = "front"
    subtasks = ("approach", "grasp", "carry", "done")
    agents = ("left", "right")

    def __init__(
        self,
        robot: str | Body | None = None,
        control: str | None = None,
        split: str = "all",
    ):
        super().__init__(robot, control, split)
        name = control or self.default_control
        self.control = pair.Both(name, self.body, self.control_dt)

    def spec(self) -> mujoco.MjSpec:
        s = pair.tabletop(self.body, memory=5)
        for goal in _GOALS:
            ghost = s.worldbody.add_body(name=goal, mocap=True)
            ghost.add_geom(
                name=goal, type=mujoco.mjtGeom.mjGEOM_BOX, size=(0.007, _BAR[1], 0.004),
                contype=0, conaffinity=0,
            )  # fmt: skip
        bar = s.worldbody.add_body(name="bar", pos=(0.42, 0, _BAR[2]))
        bar.add_freejoint(name="bar")
        form = {"contype": 1, "conaffinity": 3, "friction": (0.6, 0.005, 0.001), "condim": 4}
        form["rgba"] = (0.75, 0.62, 0.42, 1)
        bar.add_geom(name="bar", type=mujoco.mjtGeom.mjGEOM_BOX, size=_BAR, mass=0.5, **form)
        for post, side in zip(_POSTS, _SIDES, strict=True):
            bar.add_geom(
                name=post, type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=(0.012, _POST, 0), mass=0.02,
                pos=(0, side * _SPAN, _BAR[2] + _POST), **form,
            )  # fmt: skip
        for prefix in pair.ARMS:
            for post in _POSTS:
                scene.add_touch(s, post, prefix)
        return scene.finish(s, self.body, arms=2)

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        place, goals, choices = rng.random((3, 6)).tolist()
        xy = 0.41 + 0.03 * place[0], 0.04 * place[1] - 0.02
        scene.place(sim, i, 0, np.array(xy), 0.2 * place[2] - 0.1)
        near = int(2 * choices[3])  # which outline is the nearer one
        for k in range(2):
            u, v, w = goals[3 * k : 3 * k + 3]
            x = (0.34 if k == near else 0.46) + 0.04 * u
            sim.mocap_pos[i, 2 + k] = x, 0.04 * v - 0.02, 0.08 + 0.08 * w
            half = 0.1 * (choices[4 + k] - 0.5)
            sim.mocap_quat[i, 2 + k] = math.cos(half), 0, 0, math.sin(half)
        which = int(2 * choices[0])
        looks = rng.permutation(len(NAMES))[:2]
        looks = self.grammar.colours(rng, ("outline", "outline"), [which], drawn=looks)
        scene.paint(sim, i, _GOALS, looks)
        said = self.grammar.phrase(choices[1], len(_PHRASES)), self.grammar.form(choices[2])
        sim.userdata[i] = [which, *said, *looks]

    def instruction(self, sim: Sim, i: int) -> str:
        which, phrase, form, *looks = sim.userdata[i].astype(int)
        return _PHRASES[phrase].format(refer(which, [(NAMES[c], "outline") for c in looks], form))

    def _posts(self, sim: Sim) -> np.ndarray:
        """Returns where the posts are held, the left arm's first, `(n, 2, 3)` in m."""
        places, axes, _ = scene.objects(sim)
        along, up = axes[:, 0, 3:], np.cross(axes[:, 0, :3], axes[:, 0, 3:])
        ends = _SIDES[:, None] * _SPAN * along[:, None]
        return places + ends + (_HIGH * up)[:, None]

    def _goals(self, sim: Sim) -> np.ndarray:
        """Returns where the posts shall be held, `(n, 2, 3)` in m."""
        which = sim.userdata[:, 0].astype(int)
        place = scene.pick(sim, sim.mocap_pos[:, 2:4], which)
        w, _, _, z = scene.pick(sim, sim.mocap_quat[:, 2:4], which).T
        along = np.stack([-2 * w * z, 1 - 2 * z * z, np.full(sim.n, 0.0)], 1)
        goals = place[:, None] + _SIDES[:, None] * _SPAN * along[:, None]
        goals[..., 2] += _HIGH
        return goals

    def _judge(self, sim: Sim):
        """Returns posts and goals `(n, 2, 3)`, the tools' distances from them `(n, 2)` (m), which
        arms hold theirs `(n, 2)`, and the farther end's way to go `(n,)` (m)."""
        posts, goals = self._posts(sim), self._goals(sim)
        tips, touch = pair.tools(sim), pair.touched(sim)
        held = np.stack([touch[:, k, k].all(1) for k in range(2)], 1)
        near = np.stack([distance(tips[:, k], posts[:, k]) for k in range(2)], 1)
        gaps = [distance(posts[:, k], goals[:, k]) for k in range(2)]
        return posts, goals, near, held, np.maximum(*gaps)

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        bar = np.concatenate(scene.objects(sim), 2)[:, 0]
        posts, goals = self._posts(sim), self._goals(sim)
        other = scene.pick(sim, sim.mocap_pos[:, 2:4], 1 - sim.userdata[:, 0].astype(int))
        flat = [bar, posts - pair.tools(sim), posts, goals, goals - posts, other]
        return {
            "proprio": pair.proprio(sim, self.body),
            "objects": np.concatenate([x.reshape(sim.n, -1) for x in flat], 1),
        }

    def share(self, sim: Sim) -> dict[str, dict[str, np.ndarray]]:
        """Returns of each arm its own `proprio` (n, p); `others` (n, 3): the other's tool as its
        own sees it, m; `objects` (n, 24): the bar's place, axes and velocity, its own post seen
        from its tool and where that post shall be seen from it, both of the other arm's (m)."""
        bar = np.concatenate(scene.objects(sim), 2)[:, 0]
        posts, goals, tips = self._posts(sim), self._goals(sim), pair.tools(sim)
        own = np.split(pair.proprio(sim, self.body), 2, 1)
        out = {}
        for k, agent in enumerate(self.agents):
            order = [k, 1 - k]
            seen = (posts - tips[:, k : k + 1])[:, order].reshape(sim.n, -1)
            left = (goals - posts)[:, order].reshape(sim.n, -1)
            out[agent] = {
                "proprio": own[k],
                "others": tips[:, 1 - k] - tips[:, k],
                "objects": np.concatenate([bar, seen, left], 1),
            }
        return out

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        """Of each arm, `near` and `held`: it is at its post, and holds it; `there`: the bar is."""
        _, _, near, held, gap = self._judge(sim)
        close = tolerance(near, high=0.02, margin=0.3, shape="long_tail")
        return {
            "near_left": close[:, 0],
            "near_right": close[:, 1],
            "held_left": held[:, 0].astype(float),
            "held_right": held[:, 1].astype(float),
            "there": tolerance(gap, margin=0.3, shape="long_tail"),
            "done": gap < _NEAR,
        }

    @staticmethod
    def pay(near_left, near_right, held_left, held_right, there, done) -> np.ndarray:
        each = 0.1 * (near_left + near_right) + 0.1 * (held_left + held_right)
        return np.where(done, 1.0, each + 0.5 * (held_left * held_right) * there)

    def success(self, sim: Sim) -> np.ndarray:
        return self._judge(sim)[-1] < _NEAR

    def expert(self, sim: Sim) -> np.ndarray | None:
        """Each goes over its post, down to it and closes; once both hold theirs, both lead on."""
        posts, goals, _, held, _ = self._judge(sim)
        tips, both = pair.tools(sim), held.all(1)
        to, jaws = [], []
        for k in range(2):
            tip, post = tips[:, k], posts[:, k]
            aside = distance(tip[:, :2], post[:, :2])
            way = goals[:, k] - post
            far = np.maximum(distance(way, np.zeros(3)), 1e-9)
            led = tip + way * np.minimum(_STEP / far, 1)[:, None]
            over = post + np.array([0, 0, _HOVER])
            case = [both, held[:, k], aside < 0.012]
            to.append(np.select([c[:, None] for c in case], [led, tip, post], over))
            shut = held[:, k] | ((aside < 0.012) & (tip[:, 2] < post[:, 2] + 0.008))
            jaws.append(np.where(shut, -1.0, 1.0))
        return self.control.aim(sim, np.stack(to, 1), np.stack(jaws, 1), speed=0.6)

    def label(self, sim: Sim) -> dict[str, np.ndarray]:
        _, _, _, held, gap = self._judge(sim)
        up = scene.objects(sim)[0][:, 0, 2] > _BAR[2] + 0.02
        touch = pair.touched(sim).any((1, 2, 3))
        stage = np.select([gap < _NEAR, held.all(1) & up, touch], [3, 2, 1], 0)
        return {
            "subtask": stage.astype(np.int32),
            "target": sim.userdata[:, 0].astype(np.int32),
            "contact": held,
        }
