"""Sim: what a Task sees of n simulations: bound arrays and named views, no task and no clock."""

from __future__ import annotations

import difflib
import logging
import math
import os

import mujoco
import numpy as np
from mujoco import batch

_LOG = logging.getLogger(__name__)
_VEL = mujoco.mjtStage.mjSTAGE_VEL.value
_NONE = mujoco.mjtStage.mjSTAGE_NONE.value
_DIVERGED = slice(  # of the warnings: position, velocity and acceleration follow one another
    mujoco.mjtWarning.mjWARN_BADQPOS.value, mujoco.mjtWarning.mjWARN_BADQACC.value + 1
)
_OWN = 64  # so many rows, or fewer, keep an MjData each
PATTERN = 8  # numbers of a geom's pattern, see `patterns`
_SEEN = {  # fields that only cameras know, and what they are where no row has its own
    "pattern": lambda model: np.zeros((model.ngeom, PATTERN), np.float32),
    "headlight": lambda model: np.array(model.vis.headlight.diffuse, np.float32),
}
_MODEL_FIELD = {"site": "site_xpos", "body": "xpos", "geom": "geom_xpos"}


def cpus() -> int:
    """Returns the number of CPUs this process may run on (its affinity mask, not the machine)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Sim:
    """n simulations of one model on a thread pool, every field an `(n, ...)` array.

    `sim.qpos`, `sim.site_xpos`, ... are live arrays (float64, MuJoCo's names, SI units): state
    fields may be written by row, derived fields are refreshed by `step` and `forward`. A field is
    bound when first named, which must happen before `seal()`: a later binding would read zeros.
    """

    def __init__(self, model: mujoco.MjModel, n: int, nthread: int = 0):
        # The engine's own handler prints and appends to MUJOCO_LOG.TXT in the working directory.
        mujoco.set_mju_user_warning(_LOG.info)
        self.model = model
        self.n = n
        self.nthread = nthread or cpus()
        # A row's own MjData begins a substep where the last one ended: the same bits, for less time
        # where substeps are few. It takes memory, so that many rows share one a thread.
        self.batch = batch.Batch(model, n, self.nthread, persistent=n <= _OWN)
        self.state = self.batch.state
        self.varied: dict[str, np.ndarray] = {}  # per-row model fields, by MjModel's name
        self._bad = self.batch.warning[:, _DIVERGED, 1]
        self._sealed = False
        self._views: dict[tuple[str, str], np.ndarray] = {}
        self._once: dict = {}
        self.rows, self._none = np.arange(n), np.zeros(n, bool)
        self._none.flags.writeable = False
        self._keyframe = 0 if model.nkey else -1
        self.ctrl_low, self.ctrl_high = low, high = model.actuator_ctrlrange.T.copy()
        self.ctrl_middle, self.ctrl_half = (high + low)[None] / 2, (high - low)[None] / 2

    def __getattr__(self, name: str) -> np.ndarray:
        if name.startswith("_") or name not in batch.DATA_FIELDS:
            near = difflib.get_close_matches(name, sorted(batch.DATA_FIELDS), 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise AttributeError(f"a Sim has no field {name!r}{hint}")
        self._check_open(name)
        array = self.batch.bind(name)
        self.__dict__[name] = array
        return array

    def _check_open(self, name: str) -> None:
        if self._sealed and name not in _STATE:
            raise RuntimeError(
                f"field {name!r} is named for the first time after the first reset and would read "
                "zeros; name it in every call of the task's method, not only in some branch"
            )

    def once(self, key, make):
        """Returns make(), called the first time that `key` is asked for: what a model decides."""
        if key not in self._once:
            self._once[key] = make()
        return self._once[key]

    def seal(self) -> None:
        """Ends binding: from here on a derived field not yet named raises RuntimeError."""
        self._sealed = True

    def vary(self, field: str) -> np.ndarray:
        """Makes the MjModel field `field` one per row; returns it, `(n, ...)`, to be written.

        Fields that only cameras know are `pattern`, (n, ngeom, PATTERN), 0 for none, and
        `headlight`, (n, 3), its diffuse colour; both float32.
        """
        if field not in self.varied:
            own = field in _SEEN
            self.varied[field] = self.model_field(field).copy() if own else self.batch.expand(field)
        return self.varied[field]

    def model_field(self, field: str) -> np.ndarray:
        """Returns the MjModel field for every row, `(n, ...)`, read-only where it is not varied."""
        if field in self.varied:
            return self.varied[field]
        value = _SEEN[field](self.model) if field in _SEEN else getattr(self.model, field)
        return np.broadcast_to(value, (self.n, *value.shape))

    def site(self, name: str) -> np.ndarray:
        """Returns the world position of a site, `(n, 3)` in m, live."""
        return self._view("site", name)

    def turn(self, name: str) -> np.ndarray:
        """Returns the rotation matrix of a site, `(n, 9)`, row by row, live."""
        view = self._views.get(("turn", name))
        if view is None:
            view = self._views["turn", name] = self.site_xmat[:, self.model.site(name).id]
        return view

    def body(self, name: str) -> np.ndarray:
        """Returns the world position of a body's frame, `(n, 3)` in m, live."""
        return self._view("body", name)

    def geom(self, name: str) -> np.ndarray:
        """Returns the world position of a geom, `(n, 3)` in m, live."""
        return self._view("geom", name)

    def sensor(self, name: str) -> np.ndarray:
        """Returns the reading of a sensor, `(n, dim)`, live."""
        view = self._views.get(("sensor", name))
        if view is None:
            s = self.model.sensor(name)
            start = int(s.adr[0])
            view = self._views["sensor", name] = self.sensordata[:, start : start + int(s.dim[0])]
        return view

    def joint(self, name: str) -> np.ndarray:
        """Returns the coordinates of a joint, `(n, 1)` or `(n, 7)` (free), live and writable."""
        view = self._views.get(("joint", name))
        if view is None:
            j = self.model.joint(name)
            start = int(j.qposadr[0])
            view = self._views["joint", name] = self.qpos[:, start : start + len(j.qpos0)]
        return view

    def _view(self, kind: str, name: str) -> np.ndarray:
        view = self._views.get((kind, name))
        if view is None:
            array = getattr(self, _MODEL_FIELD[kind])
            view = self._views[kind, name] = array[:, getattr(self.model, kind)(name).id]
        return view

    def step(self, nstep: int, rows: np.ndarray | None = None) -> None:
        """Advances all rows, or those that the boolean mask `rows` names, by nstep substeps."""
        self.batch.step(rows, nstep, _VEL)

    def record(self, nstep: int, rows: np.ndarray | None, parts: list[slice]) -> list[np.ndarray]:
        """Advances as `step` does; returns parts of the sensors after each substep, (m, nstep, k).

        Of a substep these are its forces and accelerations, and the positions and velocities at
        its end; the last is what `sensordata` then reads. m are the rows that advance.
        """
        ran, between = slice(None) if rows is None else rows, None
        state = self.once("state", self._of_state)
        early = self.sensordata[ran][:, None][:, :0]
        if nstep > 1:
            early = self.batch.rollout(nstep - 1, record=("sensordata",), ids=rows)["sensordata"]
            if any(state[part].any() for part in parts):
                self.refresh(rows)
                between = self.sensordata[ran].copy()
        self.step(1, rows)
        out = [np.concatenate([early[..., p], self.sensordata[ran][:, None, p]], 1) for p in parts]
        for part, got in zip(parts, out, strict=True):
            # The engine reads as a substep begins: what it reads of a state comes one later.
            if nstep > 1 and state[part].any():
                own = np.flatnonzero(state[part])
                got[:, :-2, own] = early[:, 1:, part.start + own]
                got[:, -2, own] = between[:, part.start + own]
        return out

    def _of_state(self) -> np.ndarray:
        """Returns (k,) bool: whether a sensor's reading depends on the state alone."""
        m, last = self.model, int(mujoco.mjtStage.mjSTAGE_ACC)
        stage = [np.full(int(m.sensor_dim[k]), m.sensor_needstage[k]) for k in range(m.nsensor)]
        return np.concatenate(stage) != last

    def reset(self, rows: np.ndarray) -> None:
        """Puts the rows (sorted ints) back to the model's first keyframe, or its qpos0."""
        self.batch.reset(self._some(rows), self._keyframe, _NONE)

    def _some(self, rows: np.ndarray) -> np.ndarray | None:
        return None if len(rows) == self.n else rows  # whose checks take longer than a reset

    def forward(self, rows: np.ndarray) -> None:
        """Computes the derived fields of the rows (sorted ints) from their state."""
        self.batch.forward(self._some(rows))

    def refresh(self, rows: np.ndarray | None) -> None:
        """Computes what depends on position and velocity alone, as `step` leaves it; no forces."""
        self.batch.forward(rows, _VEL)

    def set_const(self, rows: np.ndarray) -> None:
        """Recomputes what the engine derives from varied sizes, masses and inertias."""
        self.batch.set_const(rows)

    def diverged(self) -> np.ndarray:
        """Returns `(n,)` bool: the engine met a non-finite or huge state since the reset."""
        if not np.count_nonzero(self._bad):  # nearly always, and `any` takes ten times as long
            return self._none
        return self._bad.any(1)

    def substeps(self, control_dt: float) -> int:
        """Returns how many physics steps make one control step.

        Raises ValueError if control_dt (s) is no multiple of the model's timestep.
        """
        ratio = control_dt / self.model.opt.timestep
        if not math.isclose(ratio, round(ratio), rel_tol=1e-6) or round(ratio) < 1:
            raise ValueError(
                f"control_dt {control_dt:g} s is not a multiple of the timestep "
                f"{self.model.opt.timestep:g} s"
            )
        return round(ratio)


_STATE = frozenset(batch._STATE_FIELDS)
