"""What the environment costs over the bare engine: step, reset, pixels, and MuJoCo's sleep flag.

Run: python benchmarks/vector_env.py
"""

from __future__ import annotations

import statistics
import time

import mujoco
import numpy as np
from mujoco import batch

from record import record
from umwelten.envs.env import BatchEnv
from umwelten.envs.sim import cpus

ROUNDS = 15


def share(task: str, n: int, steps: int) -> dict:
    """Times env.step and bare Batch.step with the same controls from the same states, in turn."""
    env = BatchEnv(task, n)
    bare = batch.Batch(env.model, n, cpus())
    ctrl = bare.bind("ctrl")
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (steps, n, len(env.action_spec))).astype(np.float32)
    substeps = env.sim.substeps(env.task.control_dt)
    ours, theirs = [], []
    for _ in range(ROUNDS):
        env.reset(seed=0)
        for field, values in env.sim.varied.items():
            bare.expand(field)[:] = values
        bare.set_const()
        bare.state[:] = env.sim.state
        controls = np.empty((steps, *ctrl.shape))
        began = time.perf_counter()
        for t in range(steps):
            env.step(actions[t])
            controls[t] = env.sim.ctrl
        ours.append(time.perf_counter() - began)
        began = time.perf_counter()
        for t in range(steps):
            ctrl[:] = controls[t]
            bare.step(None, substeps, mujoco.mjtStage.mjSTAGE_VEL.value)
        theirs.append(time.perf_counter() - began)
        if not np.array_equal(bare.bind("qpos"), env.sim.qpos):
            raise RuntimeError("the bare engine went elsewhere: the comparison is void")
    ratio = [b / a for a, b in zip(ours, theirs, strict=True)]
    a, b = statistics.median(ours), statistics.median(theirs)
    return {
        "rows": n,
        "share_of_bare": round(statistics.median(ratio), 3),
        "share_range": [round(min(ratio), 3), round(max(ratio), 3)],
        "env_steps_per_s": round(n * steps / a),
        "bare_steps_per_s": round(n * steps / b),
        "overhead_us_per_call": round((a - b) / steps * 1e6, 1),
    }


def resets(task: str, n: int = 256) -> dict:
    """Times resets of all rows, with everything that the task draws anew."""
    env = BatchEnv(task, n)
    env.reset(seed=0)
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        env.reset()
        times.append(time.perf_counter() - began)
    return {"task": task, "us_per_row": round(statistics.median(times) / n * 1e6, 1)}


def pixels(task: str, n: int = 64, steps: int = 20) -> dict:
    """Times the whole world with one camera (RGB, depth and segmentation at 64 x 64)."""
    env = BatchEnv(task, n, cameras=("front",))
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (steps, n, len(env.action_spec))).astype(np.float32)
    env.reset(seed=0)
    env.step(actions[0])
    rates = []
    for _ in range(7):
        env.reset(seed=0)
        began = time.perf_counter()
        for t in range(steps):
            env.step(actions[t])
        rates.append(n * steps / (time.perf_counter() - began))
    return {"task": task, "rows": n, "env_steps_per_s": round(statistics.median(rates))}


def sleep(task: str, n: int = 64, steps: int = 15) -> dict:
    """Times the engine with its sleep flag, and asks whether saved rows still go on exactly."""
    spec = BatchEnv(task, 1).task.spec()
    plain = spec.compile()
    spec.option.enableflags |= int(mujoco.mjtEnableBit.mjENBL_SLEEP)
    sleepy = spec.compile()
    speeds, exact = {}, {}
    for name, model, persistent in (("awake", plain, False), ("asleep", sleepy, True)):
        sims = batch.Batch(model, n, cpus(), persistent)
        ctrl = sims.bind("ctrl")
        sims.reset(keyframe=0)
        rng = np.random.default_rng(0)
        controls = sims.bind("ctrl").copy() + rng.normal(0, 0.02, (3 * steps, n, model.nu))
        for t in range(steps):
            ctrl[:] = controls[t]
            sims.step(nstep=20)
        began = time.perf_counter()
        for t in range(steps, 2 * steps):
            ctrl[:] = controls[t]
            sims.step(nstep=20)
        speeds[name] = n * steps / (time.perf_counter() - began)
        saved = sims.state.copy()
        ends = []
        other = batch.Batch(model, n, cpus(), persistent)
        for world in (sims, other):
            world.state[:] = saved
            for t in range(2 * steps, 3 * steps):
                world.bind("ctrl")[:] = controls[t]
                world.step(nstep=20)
            ends.append(world.state.copy())
        exact[name] = bool(np.array_equal(*ends))
    return {
        "task": task,
        "asleep_over_awake": round(speeds["asleep"] / speeds["awake"], 2),
        "continues_exactly_elsewhere": exact,
    }


if __name__ == "__main__":
    results = {
        "step": [share("PickPlace", n, k) for n, k in ((1, 80), (16, 30), (256, 8))],
        "reset": [resets(task) for task in ("Reach", "Push", "PickPlace", "CartpoleSwingup")],
        "pixels": [pixels(task) for task in ("Reach", "PickPlace")],
        "sleep": [sleep("PickPlace")],
    }
    for kind, rows in results.items():
        for row in rows:
            print(kind, row)
    record("vector_env", results)
