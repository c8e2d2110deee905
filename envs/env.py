"""BatchEnv: a task over n simulations, as a Gymnasium VectorEnv (`single` has the Env of one)."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np
from gymnasium.spaces import Box, Dict
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from ..robots.body import Body
from . import labels as truth
from . import language
from .rows import Streams, accepted, asked_rows, every, masked, row_seeds, some, spread, where
from .sense import Sense
from .senses import Senses
from .sim import Sim
from .snapshot import Snapshot, fingerprint
from .task import Task, make_task
from .vary import Ranges, Variation

REWARDS = ("dense", "sparse")
_FAULTS = np.array(["", "physics"], object)
_ONE = np.array(1)
PICTURE = (480, 480)  # height and width of render()'s frames


class BatchEnv(VectorEnv):
    """A task over `num_envs` simulations, stepped on `nthread` threads (0: all this process has).

    Observations are a Dict of `(n, ...)` arrays, fresh at every call: the task's vectors (float32),
    `instruction` (uint8 (n, 128), utf-8) if it has words, and per camera asked for `rgb/<name>`
    (uint8 (n, H, W, 3)), `depth/<name>` (float32 (n, H, W), m), `segmentation/<name>` (int32
    (n, H, W), geom id, -1 sky), and the keys of `senses`. Actions are `(n, nu)` in [-1, 1];
    `action_spec` says what they mean. Infos hold `success`, `is_success`, `instruction`, `time`
    (s), `fault` ("" or "physics") and, when asked for, `label/<key>` and `physics` (n, nphysics)
    float64, the whole row.

    task: a Task or its registered name. robot, control: of a task with a choice of arms, their
    names (a user's own arm is a Body), default the task's first and "delta_position".
    split: "all", "train" or what training never meets (`splits.SPLITS`), of a task with words.
    reward: "dense" in [0, 1] or "sparse" (success, 0 or 1).
    vary: what differs from episode to episode, names of `perturb.KINDS` or {name: (low, high)}, or
    `vary.level(...)`; `label/perturbation` has the values, named by `variation.columns`.
    senses: names of `senses.MEMBERS` ("imu", "audio", "points/front", ...), or Sense objects for
    other rates, delays, noise and losses; a key each, float32.
    size: (H, W) of camera images. action_repeat: control steps an action lasts; rewards are summed.
    max_episode_steps: control steps, default the task's limit, -1 for none.

    Under given actions a row is bit-identical whatever num_envs, its place or nthread: episode e
    of a row draws from (row seed, e) alone. Rows whose physics diverges end with `terminated`,
    reward 0, their last finite observation and the fault "physics".
    """

    def __init__(
        self,
        task: Task | str,
        num_envs: int = 1,
        *,
        robot: str | Body | None = None,
        control: str | None = None,
        split: str = "all",
        nthread: int = 0,
        cameras: tuple[str, ...] = (),
        senses: tuple[Sense | str, ...] = (),
        size: tuple[int, int] = (64, 64),
        reward: str = "dense",
        physics: bool = False,
        labels: bool = False,
        vary: Ranges | Sequence[str] = (),
        action_repeat: int = 1,
        max_episode_steps: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
    ):
        self._made = {k: v for k, v in locals().items() if k != "self"}
        self.task = make_task(task, robot, control, split)
        if reward not in REWARDS:
            raise ValueError(f"no reward {reward!r}; there are {', '.join(REWARDS)}")
        if num_envs < 1 or action_repeat < 1:
            raise ValueError(
                f"num_envs and action_repeat are at least 1, got {num_envs} and {action_repeat}"
            )
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"no render_mode {render_mode!r}; there is 'rgb_array'")
        self.num_envs, self.action_repeat = num_envs, action_repeat
        self._sparse, self._with_physics, self._with_labels = reward == "sparse", physics, labels
        self.render_mode = render_mode
        self._mode = AutoresetMode(autoreset_mode)
        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": round(1 / (self.task.control_dt * action_repeat)),
            "autoreset_mode": self._mode,
        }
        self.model = self._compile(senses)
        self.sim = Sim(self.model, num_envs, nthread)
        self._sensed = self.senses.start(self.sim, self.task.control_dt, action_repeat)
        self.action_spec = self.task.control.spec(self.model, 1 / self.task.control_dt)
        self.variation = Variation(self.sim, vary, len(self.action_spec), self.task.named)
        self._camera = self._picture = None
        if cameras or render_mode:
            from .cameras import make_camera  # numba costs 0.5 s and 60 MB: only if needed

            if cameras:
                self._camera = make_camera(self.sim, tuple(cameras), size)
            if render_mode:
                view = (self.task.camera,)
                self._picture = make_camera(self.sim, view, PICTURE, kinds=("rgb",), shadows=True)
        self._rehearse()
        self._start_rows(max_episode_steps)

    def _compile(self, senses: tuple[Sense | str, ...]) -> mujoco.MjModel:
        """Returns the model of the task, its control, the senses and, if asked for, the labels."""
        spec = self.task.spec()
        self.task.control.prepare(spec)
        self.senses = Senses(senses, spec, self.task.speakers)
        self._bare = spec.compile()  # what Snapshots are of: labels only add sensors to it
        if not self._with_labels:
            return self._bare
        truth.prepare(spec)
        return spec.compile()

    def _rehearse(self) -> None:
        """Runs every method of the task once, so that all fields are bound and shapes known."""
        sim, task = self.sim, self.task
        everyone = np.arange(sim.n)
        with np.errstate(all="ignore"):  # what is bound here reads zeros until the first reset
            sim.reset(everyone)
            task.reset(sim, 0, np.random.default_rng(0))
            sim.forward(everyone)
            task.control.start(sim, everyone)
            vectors = {k: v.shape[1:] for k, v in task.observe(sim).items()}
            self._has_words = bool(task.instruction(sim, 0))
            if "language" in self.variation.ranges and not self._has_words:
                raise ValueError(f"{type(task).__name__} has no words that vary=language could")
            for method in (task.judge, task.success, task.terminated, task.label, task.expert):
                method(sim)
            if self._with_labels:
                truth.of(task, sim)
            task.control.apply(sim, np.zeros((sim.n, len(self.action_spec))))
            self.senses.begin(everyone, everyone, everyone)
        sim.seal()
        self._set_const = bool(set(sim.varied) & set(mujoco.MjModel._setconst_inputs))
        spaces = {k: Box(-np.inf, np.inf, shape, np.float32) for k, shape in vectors.items()}
        if self._has_words:
            spaces["instruction"] = Box(0, 255, (language.LENGTH,), np.uint8)
        if self._camera:
            spaces |= self._camera.spaces()
        if twice := spaces.keys() & self._sensed.keys():
            raise ValueError(f"the task observes {', '.join(sorted(twice))} itself; ask for others")
        spaces |= self._sensed
        self.single_observation_space = Dict(spaces)
        self.single_action_space = Box(-1.0, 1.0, (len(self.action_spec),), np.float32)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def _start_rows(self, limit: int | None) -> None:
        if limit is None:
            limit = round(self.task.time_limit / self.task.control_dt)
        # Arrays, like all that a step takes: numpy is slow to make them of Python's numbers.
        self._limit = np.array(np.iinfo(np.int64).max if limit < 0 else limit)
        self._dt = np.array(self.task.control_dt)
        n = self.num_envs
        self._streams = Streams()
        self._seed = np.full(n, -1, np.int64)  # -1: not drawn yet
        self._episode = np.zeros(n, np.int64)
        self._age = np.zeros(n, np.int64)  # control steps since the episode began
        self._all, self._done, self._fault = np.ones(n, bool), np.ones(n, bool), np.zeros(n, bool)
        self._words = np.full(n, "", object)
        self._codes = np.zeros((n, language.LENGTH), np.uint8)
        self._last: dict[str, np.ndarray] = {}

    def reset(self, *, seed: int | list[int | None] | None = None, options: dict | None = None):
        """Begins an episode in every row, or in those where options["reset_mask"] is True.

        seed s gives row i the seed s + i, a list gives each its own; without one a row goes on to
        its next episode (its first seed is then drawn from the system).
        """
        mask = asked_rows(options, self.num_envs)
        obs, success = self.start(seed, mask)
        return obs, masked(self._info(success), mask)

    def start(self, seed: int | list[int | None] | None, mask: np.ndarray):
        """Does as `reset` in the rows of mask (n,) bool; returns observations and success."""
        seeds = row_seeds(seed, self.num_envs)
        if isinstance(seed, int):
            super().reset(seed=seed)
        rows = np.flatnonzero(mask)
        for i in rows.tolist():
            if seeds[i] is not None:
                self._seed[i], self._episode[i] = seeds[i], 0
            elif self._seed[i] < 0:
                self._seed[i] = self.np_random.integers(2**31)
            else:
                self._episode[i] += 1
        self._begin(rows)
        obs = self._observe(rows)
        if len(rows) < self.num_envs:
            if not self._last:
                raise ValueError("reset_mask leaves out rows that were never reset; reset all once")
            obs = {k: where(mask, v, self._last[k]) for k, v in obs.items()}
        self._keep(obs)
        return obs, self.task.success(self.sim)

    def step(self, actions: np.ndarray):
        """Advances every row by one action; rows that ended are treated as autoreset_mode says.

        Raises ValueError, before anything moves, for actions of a wrong shape or not finite.
        """
        obs, reward, terminated, truncated, success = self.advance(actions)
        info, final = self._info(success), {}
        if self._mode is AutoresetMode.SAME_STEP and some(self._done):
            obs, final = self._reset_in_step(obs, info)
            info = self._info(self.task.success(self.sim))
            self._keep(obs)
        return obs, reward, terminated, truncated, masked(info, self._all) | final

    def advance(self, actions: np.ndarray):
        """Does as `step`, but for SAME_STEP's resets; the last is not the infos but success."""
        action, due = accepted(actions, self.action_space.shape), self._done
        reset = some(due)
        if reset and self._mode is not AutoresetMode.NEXT_STEP:
            raise RuntimeError(
                f"rows {np.flatnonzero(due)[:8].tolist()} have ended or were never reset; call "
                "reset(), with options={'reset_mask': rows} for some"
            )
        if not self._last:
            raise RuntimeError("step() comes after reset(); call reset() first")
        reward, terminated, success = self._advance(action, ~due if reset else self._all)
        if reset:
            rows = np.flatnonzero(due)
            self._episode[rows] += 1
            self._begin(rows)
            success = self.task.success(self.sim)
        truncated = self._age >= self._limit
        obs = self._observe()
        if some(self._fault):
            obs = {k: where(self._fault, self._last[k], v) for k, v in obs.items()}
        self._done = terminated | truncated
        self._keep(obs)
        return obs, reward, terminated, truncated, success

    def _advance(self, action: np.ndarray, run: np.ndarray) -> tuple[np.ndarray, ...]:
        """Moves the rows in `run`; returns rewards and terminations, 0 and False elsewhere.

        And success where all rows now are, if any ran.
        """
        sim, task, success = self.sim, self.task, self._all
        at_once = self.action_repeat == 1 and every(run)
        total, ended = np.zeros(sim.n), np.zeros(sim.n, bool)
        for _ in range(self.action_repeat):
            if not some(run):
                break
            task.control.apply(sim, self.variation.delayed(action, run))
            self._age += _ONE if at_once else run.astype(np.int64)
            self.senses.step(run, self._seed, self._episode, self._age)
            fault = sim.diverged()
            reward, success = task.judge(sim)
            if self._sparse:
                reward = success.astype(float)
            if at_once and not some(fault):
                return reward, task.terminated(sim), success  # what follows, where none is apart
            fault = fault & run
            total += np.where(run & ~fault, reward, 0.0)
            self._fault |= fault
            ended |= run & (task.terminated(sim) | fault)
            run = run & ~ended & (self._age < self._limit)
        total[self._fault] = 0.0
        return total, ended, success

    def _begin(self, rows: np.ndarray) -> None:
        """Begins the episode that each row (sorted ints) is at."""
        sim = self.sim
        sim.reset(rows)
        self.variation.clear(rows)
        for i in rows.tolist():
            key = np.array([self._seed[i], self._episode[i]], np.uint64)
            self.task.reset(sim, i, self._streams.at(key))
            self.variation.draw(i, key)
        if self._set_const:
            sim.set_const(rows)
        sim.forward(rows)
        self.task.control.start(sim, rows)
        self.senses.begin(rows, self._seed, self._episode)
        self._age[rows] = self._done[rows] = self._fault[rows] = 0
        self._name(rows)

    def _name(self, rows: np.ndarray) -> None:
        if self._has_words:
            for i in rows.tolist():
                self._words[i] = self.variation.reworded(i, self.task.instruction(self.sim, i))
                self._codes[i] = language.encode(self._words[i])

    def _reset_in_step(self, obs: dict, info: dict) -> tuple[dict, dict]:
        """Begins the next episode of the rows that are done; their last step moves to final_*."""
        rows = np.flatnonzero(done := self._done.copy())
        final = np.full(self.num_envs, None, object)
        for i in rows:
            final[i] = {k: v[i].copy() for k, v in obs.items()}
        last = {"final_obs": final, "_final_obs": done}
        last |= {"final_info": masked(info, done), "_final_info": done.copy()}
        self._episode[rows] += 1
        self._begin(rows)
        fresh = self._observe(rows)
        return {k: where(done, fresh[k], v) for k, v in obs.items()}, last

    def _observe(self, rows: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Returns fresh observations; images are only right for the rows asked for (None: all)."""
        obs = {k: v.astype(np.float32) for k, v in self.task.observe(self.sim).items()}
        obs = self.variation.noisy(obs, self._age)
        if self._has_words:
            obs["instruction"] = self._codes.copy()
        if self._camera:
            images = self._camera.render(rows)
            if rows is not None and len(rows) < self.num_envs:
                images = {k: spread(v, rows, self.num_envs) for k, v in images.items()}
            obs |= images
        return obs | self.senses.observe() if self.senses.all else obs

    def _info(self, success: np.ndarray) -> dict[str, np.ndarray]:
        if some(self._fault):
            success = success & ~self._fault
        return {
            "success": success,
            "is_success": success.copy(),
            "instruction": self._words.copy(),
            "time": self._age * self._dt,
            "fault": _FAULTS[self._fault.astype(np.intp)],
        } | self._asked()

    def _asked(self) -> dict[str, np.ndarray]:
        """Returns what infos hold where it is asked for."""
        info = {}
        if self._with_labels:
            labels = truth.of(self.task, self.sim)
            info = {f"label/{k}": np.array(v) for k, v in labels.items()}
            if self.variation.columns:
                info["label/perturbation"] = self.variation.values.copy()
        if self._with_physics:
            info["physics"] = self.physics()
        return info

    def _keep(self, obs: dict[str, np.ndarray]) -> None:
        self._last = {k: v.copy() for k, v in obs.items()}

    @property
    def fingerprint(self) -> str:
        """Returns a hash of the compiled model: Snapshots pass between worlds that share it."""
        if not hasattr(self, "_fingerprint"):
            drawn = self.variation.columns, map(repr, self.senses.all)
            self._fingerprint = fingerprint(self._bare, type(self.task).__name__, *drawn)
        return self._fingerprint

    def expert(self) -> np.ndarray:
        """Returns the task's scripted actions `(n, nu)` float32 for the present state.

        Where actions arrive late they are those for the state that they arrive in, which a world
        of their own finds: the script knows what is on its way. Raises ValueError if the task has
        no expert.
        """
        action, late = self.task.expert(self.sim), self.variation.late
        if action is None:
            raise ValueError(f"{type(self.task).__name__} has no scripted expert; choose a policy")
        if some(late > 0):
            action = where(late > 0, self.task.expert(self._arrived(late)), action)
        return np.clip(action, -1, 1).astype(np.float32)

    def _arrived(self, late: np.ndarray) -> Sim:
        """Returns a Sim in which the last of each row's `late` (n,) actions has arrived."""
        if not hasattr(self, "_ahead"):
            plain = {"cameras": (), "senses": (), "labels": False, "physics": False}
            plain |= {"action_repeat": 1, "max_episode_steps": -1, "render_mode": None}
            self._ahead = BatchEnv(**self._made | plain)
        physics, nothing = self.physics(), np.zeros(self.action_space.shape)
        for k in range(int(late.max()), 0, -1):
            physics = where(late >= k, self._ahead.branch(physics, nothing)[0], physics)
        return self._ahead.sim

    def words(self) -> np.ndarray:
        """Returns the rows' instructions, `(n,)` of str."""
        return self._words.copy()

    def physics(self) -> np.ndarray:
        """Returns a copy of the whole rows, `(n, nphysics)` float64: state, variation, age."""
        sim = self.sim
        varied = [sim.varied[k].reshape(sim.n, -1) for k in sorted(sim.varied)]
        return np.concatenate([sim.state, *varied, self.variation.memory, self._age[:, None]], 1)

    def set_physics(self, rows: np.ndarray, physics: np.ndarray) -> None:
        """Puts rows (m sorted ints) into the conditions `physics` (m, nphysics) describes.

        What senses remember (late samples, what still rings) stays: `load` brings that back too.
        """
        sim = self.sim
        width = sim.state.shape[1] + sum(v[0].size for v in sim.varied.values()) + 1
        width += self.variation.memory.shape[1]
        if physics.shape != (len(rows), width):
            raise ValueError(f"physics has shape {(len(rows), width)}, got {physics.shape}")
        stale = np.zeros(len(rows), bool)
        at = sim.state.shape[1]
        for key in sorted(sim.varied):
            field = sim.varied[key]
            value = physics[:, at : at + field[0].size].reshape(-1, *field.shape[1:])
            at += field[0].size
            if key in mujoco.MjModel._setconst_inputs:
                stale |= (field[rows] != value).reshape(len(rows), -1).any(1)
            field[rows] = value
        self.variation.memory[rows] = physics[:, at:-1]
        if sim.diverged()[rows].any():
            sim.reset(rows)
        if stale.any():
            sim.set_const(rows[stale])
        sim.state[rows] = physics[:, : sim.state.shape[1]]
        self._age[rows] = physics[:, -1].astype(np.int64)
        self._fault[rows] = False
        sim.refresh(rows)

    def branch(self, physics: np.ndarray, action: np.ndarray):
        """Returns what `action` (m, nu) leads to from `physics` (m, nphysics), m <= num_envs.

        The answer is (physics (m, nphysics), reward (m,), terminated (m,)), exactly what `step`
        gives there. The first m rows of this world are overwritten: plan in a world of its own,
        which needs no senses.
        """
        m = len(physics)
        full = np.zeros(self.action_space.shape, np.float32)
        full[:m] = action
        self.set_physics(np.arange(m), physics)
        reward, terminated, _ = self._advance(
            accepted(full, self.action_space.shape), np.arange(self.num_envs) < m
        )
        return self.physics()[:m], reward[:m], terminated[:m]

    def look(self, physics: np.ndarray) -> dict[str, np.ndarray]:
        """Returns what the task observes at `physics` (m, nphysics), m <= num_envs: `(m, ...)`.

        Without noise, words, cameras and senses; what is observed of forces is not known from
        physics alone. The first m rows of this world are overwritten, as by `branch`.
        """
        m = len(physics)
        self.set_physics(np.arange(m), physics)
        return {k: v[:m].astype(np.float32) for k, v in self.task.observe(self.sim).items()}

    def save(self) -> Snapshot:
        """Returns all rows as they are now; `load` goes on from there to the same bits."""
        arrays = {
            "physics": self.physics(),
            "seed": self._seed.copy(),
            "episode": self._episode.copy(),
            "done": self._done.copy(),
            "fault": self._fault.copy(),
            **{f"sense/{k}": v for k, v in self.senses.save().items()},
        }
        return Snapshot(
            self.fingerprint, arrays | {f"last/{k}": v.copy() for k, v in self._last.items()}
        )

    def load(self, snapshot: Snapshot) -> dict[str, np.ndarray]:
        """Puts every row where the Snapshot's is; returns the observations (n, ...) of then.

        Raises ValueError for a Snapshot of another model or another number of rows (choose with
        `snapshot.rows`).
        """
        if snapshot.fingerprint != self.fingerprint:
            raise ValueError(
                "the Snapshot is of another model (task, body or MuJoCo version differ): "
                f"{snapshot.fingerprint[:12]}, this world is {self.fingerprint[:12]}"
            )
        if len(snapshot) != self.num_envs:
            raise ValueError(
                f"the Snapshot has {len(snapshot)} rows, this world {self.num_envs}; "
                "choose rows with snapshot.rows(index)"
            )
        rows, arrays = np.arange(self.num_envs), snapshot.arrays
        self.sim.reset(rows)
        self.set_physics(rows, arrays["physics"])
        self._seed, self._episode = arrays["seed"].copy(), arrays["episode"].copy()
        self._done, self._fault = arrays["done"].copy(), arrays["fault"].copy()
        self._name(rows)
        self._keep({k: arrays[f"last/{k}"] for k in self.single_observation_space})
        self.senses.load({k[6:]: v for k, v in arrays.items() if k[:6] == "sense/"}, self._last)
        return {k: v.copy() for k, v in self._last.items()}

    def __getstate__(self) -> tuple[dict, Snapshot | None]:
        """Returns how this world was made and where it is: a pickle goes on in another process."""
        return self._made, self.save() if self._last else None

    def __setstate__(self, state: tuple[dict, Snapshot | None]) -> None:
        made, snapshot = state
        self.__init__(**made)
        if snapshot is not None:
            self.load(snapshot)

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Returns a picture uint8 (480, 480, 3) of each row, if render_mode is "rgb_array"."""
        if self._picture is None:
            return None
        return tuple(self._picture.render()[f"rgb/{self.task.camera}"])
