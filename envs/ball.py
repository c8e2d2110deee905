"""PushBall2v2: two rovers get a ball into the goal that the words name; two others would not."""

from __future__ import annotations

import math

import mujoco
import numpy as np

from . import fleet, scene, yard
from .fleet import Fleet
from .language import NAMES, refer
from .sim import Sim
from .teams import Team

_PHRASES = ("push the ball into {}", "score in {}", "get the ball into {}")
_HALF, _ASIDE = 2.0, 1.2  # m: half the pitch, from end to end and from side to side
_RADIUS = 0.1  # m, of the ball
_LINE, _WIDE, _BAR = 1.55, 0.5, 0.25  # m: where goals open, half their width, their bar's height
_SLANT = _LINE - (_ASIDE - _WIDE)  # m: where the sides begin to lead to the goals, at 45 degrees
_QUARTER = ((_HALF, _WIDE), (_LINE, _WIDE), (_SLANT, _ASIDE))
_CORNERS = (
    *_QUARTER, *((-x, y) for x, y in reversed(_QUARTER)),
    *((-x, -y) for x, y in _QUARTER), *((x, -y) for x, y in reversed(_QUARTER)),
)  # fmt: skip
_GOALS = ("goal", "goal2")  # at -x and at +x
_ENDS = np.array([[-1.0, 0.0], [1.0, 0.0]])
_BEHIND = 0.42  # m behind the ball, where a push begins
_CLEAR, _APART = 0.40, 0.48  # m that rovers keep from the ball, on their way, and from each other
_YIELD = 0.8  # m from the ball to home's nearest, where away's script makes way
_FLANKS = np.array([[0.0, 0.98], [0.0, -0.98]])
_PACE = np.array([1.0, 1.0, 0.35, 0.35])  # of the script: the away side lets home score
_PALE = (0.80, 0.76, 0.68, 1)
_G = mujoco.mjtGeom


class PushBall2v2(Team):
    """Get the ball into the named goal, where it stays; its bar lets the ball in, but no rover.

    Home is paid the more the nearer the ball is to the named goal, away what is left of 1.
    `proprio` (n, 24): of the rovers, home's first, place (m), facing, speeds (m/s, rad/s).
    `objects` (n, 8): the ball's place (m) and velocity (m/s), the named goal's place, the other's.
    """

    control_dt = 0.1
    time_limit = 30.0
    camera = "pitch"
    subtasks = ("approach", "push", "scored")
    agents = ("home_0", "home_1", "away_0", "away_1")
    side = ("home_0", "home_1")
    named = (*_GOALS, *(f"{agent}/chassis" for agent in agents))
    control = Fleet(agents, (0.5, 0.5, 0.5, 0.5))

    def spec(self) -> mujoco.MjSpec:
        s = fleet.spec(self.agents)
        scene.stage(s, 5, 0.0, (-0.6, -1.2, 3.6), (0.15, 0.3, -0.9))
        eye = np.array([0.0, -2.8, 4.1])
        pose = {"pos": eye, "quat": yard.gaze(eye, np.array([0.0, -0.12, 0]))}
        s.worldbody.add_camera(name="pitch", fovy=50, **pose)
        for k, corner in enumerate(_CORNERS):
            _add_wall(s, f"wall{k}", _CORNERS[k - 1], corner)
        for k, name in enumerate(_GOALS):
            _add_goal(s, name, 2 * k - 1)
        ball = s.worldbody.add_body(name="ball", pos=(0, 0, _RADIUS))
        ball.add_freejoint(name="ball")
        ball.add_geom(
            name="ball", type=_G.mjGEOM_SPHERE, size=(_RADIUS, 0, 0), mass=0.4, condim=6,
            friction=(0.3, 0.005, 0.003), priority=1, contype=1, conaffinity=3,
            rgba=(0.95, 0.95, 0.9, 1),
        )  # fmt: skip
        for name in self.agents[:2]:
            s.geom(f"{name}/chassis").rgba = (0.85, 0.86, 0.88, 1)
        return s

    def reset(self, sim: Sim, i: int, rng: np.random.Generator) -> None:
        spots = scene.scatter(rng, 5, (-0.9, -0.75), (0.9, 0.75), apart=0.6)
        central = int((spots**2).sum(1).argmin())
        sim.joint("ball")[i, :2] = spots[central]
        for k, spot in enumerate(np.delete(spots, central, 0)):
            fleet.put(sim, i, k, spot, rng.uniform(-math.pi, math.pi))
        looks = rng.permutation(len(NAMES))[:2]
        which, phrase, form = rng.random(3).tolist()
        which = int(2 * which)
        looks = self.grammar.colours(rng, ("goal", "goal"), [which], drawn=looks)
        scene.paint(sim, i, _GOALS, looks)
        said = self.grammar.phrase(phrase, len(_PHRASES)), self.grammar.form(form)
        sim.userdata[i] = [which, *said, *looks]

    def instruction(self, sim: Sim, i: int) -> str:
        which, phrase, form, *looks = sim.userdata[i].astype(int)
        return _PHRASES[phrase].format(refer(which, [(NAMES[c], "goal") for c in looks], form))

    def _which(self, sim: Sim) -> np.ndarray:
        return sim.userdata[:, 0].astype(int)

    def _ball(self, sim: Sim) -> tuple[np.ndarray, np.ndarray]:
        """Returns the ball's place (m) and velocity (m/s), `(n, 2)` each: the last free thing."""
        return sim.qpos[:, -7:-5], sim.qvel[:, -6:-4]

    def _depth(self, sim: Sim) -> np.ndarray:
        """Returns how far the whole ball is past the named goal's line `(n,)`, m; < 0 before it."""
        ball, _ = self._ball(sim)
        past = ball[:, 0] * _ENDS[self._which(sim), 0] - _LINE - _RADIUS
        return np.where(np.abs(ball[:, 1]) < _WIDE, past, np.minimum(past, -_RADIUS))

    def observe(self, sim: Sim) -> dict[str, np.ndarray]:
        goals = _HALF * _ENDS[scene.order(self._which(sim), 2)].reshape(sim.n, -1)
        return {
            "proprio": fleet.proprio(sim).reshape(sim.n, -1),
            "objects": np.concatenate([*self._ball(sim), goals], 1),
        }

    def share(self, sim: Sim) -> dict[str, dict[str, np.ndarray]]:
        """Returns of each its own `proprio` (n, 6), `others` (n, 12): their places (m) and
        velocities (m/s), and `objects` (n, 8): the ball's place and velocity, the place of the
        goal that its side shoots at and of the other. All as it sees them."""
        own, rest, at = fleet.proprio(sim), fleet.others(sim), fleet.places(sim)
        (ball, speed), n = self._ball(sim), sim.n
        target = scene.order(self._which(sim), 2)
        target = np.stack([target, target, target[:, ::-1], target[:, ::-1]], 1)
        points = np.concatenate(
            [np.broadcast_to(ball[:, None, None], (n, 4, 1, 2)), _HALF * _ENDS[target]], 2
        )
        ways = points - at[:, :, None]
        rolls = np.broadcast_to(speed[:, None, None], (n, 4, 1, 2))
        things = fleet.seen(sim, np.concatenate([ways[:, :, :1], rolls, ways[:, :, 1:]], 2))
        things = things.reshape(n, 4, -1)
        return {
            agent: {"proprio": own[:, k], "others": rest[:, k], "objects": things[:, k]}
            for k, agent in enumerate(self.agents)
        }

    def terms(self, sim: Sim) -> dict[str, np.ndarray]:
        ball, _ = self._ball(sim)
        gap = fleet.length(_HALF * _ENDS[self._which(sim)] - ball)
        return yard.terms(gap, self.success(sim), span=2 * _HALF)

    pay = staticmethod(yard.pay)

    def payoff(self, sim: Sim) -> dict[str, np.ndarray]:
        home = self.reward(sim)
        return {"home_0": home, "home_1": home, "away_0": 1 - home, "away_1": 1 - home}

    def success(self, sim: Sim) -> np.ndarray:
        return self._depth(sim) > 0

    def expert(self, sim: Sim) -> np.ndarray | None:
        """Of each side the rover that is nearer to its place behind the ball goes there and pushes
        towards the goal, the other waits; away drives slowly, and makes way where home comes."""
        target, at = _ENDS[self._which(sim)], fleet.places(sim)
        ball, n = self._ball(sim)[0], sim.n
        home, away = self._play(sim, 0, target), self._play(sim, 2, -target)
        near = fleet.length(at[:, :2] - ball[:, None]).min(1) < _YIELD
        flanks = []
        for k in range(2):
            blocks = [(ball, _YIELD), *((at[:, j], _APART) for j in (0, 1, 3 - k))]
            flanks.append(_within(_past(at[:, 2 + k], _FLANKS[k], blocks)))
        away = np.where(near[:, None, None], np.stack(flanks, 1), away)
        goals = np.concatenate([home, away], 1)
        done = np.broadcast_to(self.success(sim)[:, None, None], (n, 4, 2))
        action = self.control.go(sim, np.where(done, at, goals), pace=_PACE).reshape(n, 4, 2)
        x, y = np.moveaxis(fleet.others(sim).reshape(n, 4, 3, 4)[..., :2], 3, 0)
        leans = (fleet.length(np.stack([x, y], 3)) < 2 * fleet.RIM + 0.03) & (x > np.abs(y) / 2)
        action[..., 0] = np.where(leans.any(2), -0.5, action[..., 0])  # head to head: back off
        return action.reshape(n, 8)

    def _play(self, sim: Sim, first: int, target: np.ndarray) -> np.ndarray:
        """Returns where the side of the rovers first and first + 1 goes `(n, 2, 2)`, m."""
        at, (ball, _) = fleet.places(sim), self._ball(sim)
        behind = _within(ball - _BEHIND * _unit((_LINE + 0.3) * target - ball))
        push = _unit(ball - behind)
        side = at[:, first : first + 2]
        far = fleet.length(side - behind[:, None])
        goals = []
        for k in range(2):
            rest = side[:, k] - ball
            along = rest[:, 0] * push[:, 0] + rest[:, 1] * push[:, 1]
            aside = np.abs(rest[:, 1] * push[:, 0] - rest[:, 0] * push[:, 1])
            ready = (along < -0.2) & (aside < 0.1)
            mine = far[:, 0] <= far[:, 1] if k == 0 else far[:, 1] < far[:, 0]
            goal = np.where(mine[:, None], behind, _within(ball - 1.1 * push))
            others = [(at[:, j], _APART) for j in range(4) if j != first + k]
            around = _past(side[:, k], goal, [(ball, _CLEAR), *others])
            goals.append(np.where((mine & ready)[:, None], ball + 0.3 * push, around))
        return np.stack(goals, 1)

    def label(self, sim: Sim) -> dict[str, np.ndarray]:
        rolls = fleet.length(self._ball(sim)[1]) > 0.05
        stage = np.select([self.success(sim), rolls], [2, 1], 0)
        return {"subtask": stage.astype(np.int32), "target": self._which(sim).astype(np.int32)}


def _unit(way: np.ndarray) -> np.ndarray:
    return way / np.maximum(fleet.length(way), 1e-6)[:, None]


def _past(start: np.ndarray, goal: np.ndarray, blocks) -> np.ndarray:
    """Returns the next place on the way to `goal` (n, 2), away from and around blocks too near.

    blocks: pairs of a place `(n, 2)` and the distance that is kept from it, m.
    """
    way = goal - start
    way = way / np.maximum(fleet.length(way), 0.3)[:, None]
    turned = way
    for block, keep in blocks:
        off = start - block
        weight = np.minimum(np.maximum((keep - fleet.length(off)) / 0.15, 0), 2)[:, None]
        off = _unit(off)
        round_it = np.stack([-off[:, 1], off[:, 0]], 1)
        towards = round_it[:, 0] * way[:, 0] + round_it[:, 1] * way[:, 1]
        turned = turned + weight * (off + np.where(towards < 0, -1.0, 1.0)[:, None] * round_it)
    return start + 0.4 * turned


def _within(place: np.ndarray) -> np.ndarray:
    """Returns the places `(n, 2)` in m brought to where a rover can be."""
    x = np.clip(place[:, 0], 0.2 - _LINE, _LINE - 0.2)
    most = np.minimum(_LINE + _WIDE - 0.28 - np.abs(x), _ASIDE - 0.2)
    return np.stack([x, np.clip(place[:, 1], -most, most)], 1)


def _add_goal(s: mujoco.MjSpec, name: str, side: int) -> None:
    """Adds a goal at the end `side` (-1 or 1) of x: its coloured ground, its bar."""
    deep = (_HALF - _LINE) / 2
    s.worldbody.add_geom(
        name=name, type=_G.mjGEOM_BOX, size=(deep, _WIDE, 0.001), contype=0, conaffinity=0,
        pos=(side * (_LINE + deep), 0, 0.001),
    )  # fmt: skip
    s.worldbody.add_geom(
        name=f"{name} bar", type=_G.mjGEOM_BOX, size=(0.02, _WIDE, 0.03), rgba=_PALE,
        pos=(side * _LINE, 0, _BAR + 0.03), contype=1, conaffinity=3,
    )  # fmt: skip


def _add_wall(s: mujoco.MjSpec, name: str, start, end) -> None:
    """Adds a wall on the line from start to end, m; corners follow one another to the left."""
    way = np.subtract(end, start)
    long = float(np.hypot(*way))
    middle = np.add(start, end) / 2 + yard.THICK / 2 * np.array([way[1], -way[0]]) / long
    turn = math.atan2(way[1], way[0]) / 2
    s.worldbody.add_geom(
        name=name, type=_G.mjGEOM_BOX, size=(long / 2 + 0.01, yard.THICK / 2, yard.HEIGHT / 2),
        pos=(*middle, yard.HEIGHT / 2), quat=(math.cos(turn), 0, 0, math.sin(turn)),
        rgba=_PALE, contype=1, conaffinity=3,
    )  # fmt: skip
