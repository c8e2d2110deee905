"""Peer: one world of a peer, run inside that peer's own Python; it knows nothing of ours.

    python peer.py PEER/WORLD KIND

Makes the world, prints a line of JSON about the start, then for every line on stdin, a number of
seconds, runs that long and prints what it counted. Actions are random and drawn beforehand;
episodes that end begin anew. CPU times are of the process and its threads: of "async", whose
worlds are child processes, only `per_s` tells anything.

Kinds: "state" (one world), "rgb64" and "rgb84" (one world, a picture a step), "sync", "async" and
"native" (ROWS worlds), "check" (the same seed twice, and Gymnasium's checker).
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import json
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROWS = 64
SIZES = {"rgb64": 64, "rgb84": 84}


@dataclass(frozen=True)
class World:
    """What can be timed: a step of all rows, with what the end of an episode asks for, a reset."""

    step: Callable[[], object]
    reset: Callable[[], object]
    dt: float | None  # s of simulated time that a step takes; None: no physics
    rows: int = 1


def serve(make: Callable[[str, str], World], name: str, kind: str) -> None:
    """Makes a world and measures it as often as stdin asks; resets are timed of kind "state"."""
    world = make(name, kind)
    made = time.process_time()  # counts from the start of the process: imports are in it
    for _ in range(20):
        world.step()
    status = Path("/proc/self/status").read_text()
    resident = int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024
    print(json.dumps({"make_cpu_s": made, "resident_mib": resident, "dt": world.dt}), flush=True)
    for line in sys.stdin:
        found = measure(world, float(line))
        if kind == "state":
            marks = [time.process_time()]
            for _ in range(10):
                world.reset()
                marks.append(time.process_time())
            found["reset_ms"] = float(np.median(np.diff(marks))) * 1e3
        print(json.dumps(found), flush=True)


def measure(world: World, seconds: float) -> dict[str, float]:
    """Counts the steps of all rows in a CPU-second and in a second."""
    steps, wall, cpu = 0, time.perf_counter(), time.process_time()
    while not steps or time.perf_counter() - wall < seconds:
        world.step()
        steps += world.rows
    spent, passed = time.process_time() - cpu, time.perf_counter() - wall
    return {"per_cpu_s": steps / spent, "per_s": steps / passed}


def drawn(low, high, *shape: int, dtype=np.float64):
    """Returns an endless supply of actions `shape`, drawn beforehand."""
    rng = np.random.default_rng(0)
    return itertools.cycle(list(rng.uniform(low, high, (256, *shape)).astype(dtype)))


def actions(space, *rows: int):
    """Returns an endless supply of random actions of a Gymnasium space, for so many rows."""
    if hasattr(space, "n"):
        return drawn(0, space.n, *rows, dtype=np.int64)
    return drawn(space.low, space.high, *rows, *space.shape, dtype=space.dtype)


def single(env, dt: float | None, draw: Callable[[], object] | None = None) -> World:
    """Returns the world of a `gymnasium.Env`, seen by `draw` after every step."""
    supply = actions(env.action_space)

    def step():
        if any(env.step(next(supply))[2:4]):
            env.reset()
        if draw:
            draw()

    env.reset(seed=0)
    if draw and draw().std() == 0:
        raise RuntimeError("the picture is empty")
    return World(step, env.reset, dt)


def vector(env, dt: float | None) -> World:
    """Returns the world of a `gymnasium.vector.VectorEnv`."""
    supply = actions(env.single_action_space, env.num_envs)
    env.reset(seed=0)
    return World(lambda: env.step(next(supply)), env.reset, dt, env.num_envs)


def check(env) -> None:
    """Prints whether the same seed leads to the same, then whether Gymnasium's checker passes."""
    from gymnasium.utils.env_checker import check_env

    def episode() -> bytes:
        supply, seen = actions(env.action_space), [env.reset(seed=3)[0]]
        seen += [env.step(next(supply))[0] for _ in range(60)]
        rows = [row.values() if isinstance(row, dict) else [row] for row in seen]
        return b"".join(np.asarray(v).tobytes() for row in rows for v in row)

    print(json.dumps({"same_seed": episode() == episode()}), flush=True)
    check_env(env.unwrapped, skip_render_check=True)  # which would open a window
    print(json.dumps({"check_env": "passes"}), flush=True)
    sys.exit()


def gym(name: str, kind: str, **keywords) -> World:
    """An id of Gymnasium's ("module:id" imports the module)."""
    import gymnasium

    def make(**picture):
        return gymnasium.make(name, **keywords, **picture)

    env = make()
    dt = getattr(env.unwrapped, "dt", None)
    if kind == "check":
        check(env)
    if kind in ("sync", "async"):
        many = gymnasium.vector.SyncVectorEnv if kind == "sync" else gymnasium.vector.AsyncVectorEnv
        return vector(many([make] * ROWS), dt)
    if kind in SIZES:
        env = make(render_mode="rgb_array", width=SIZES[kind], height=SIZES[kind])
        return single(env, dt, env.render)
    return single(env, dt)


def gymnasium(name: str, kind: str) -> World:
    """Gymnasium's own classes on dm_control's model files, at their control rate."""
    file = Path(importlib.util.find_spec("dm_control").origin).parent / "suite" / f"{name}.xml"
    more = {"xml_file": str(file), "camera_name": "side", "frame_skip": 1}
    if name == "cheetah":
        return gym("HalfCheetah-v5", kind, **more)
    return gym("Walker2d-v5", kind, **more | {"frame_skip": 10, "terminate_when_unhealthy": False})


def dm_control(name: str, kind: str) -> World:
    """A task of the suite behind a thin `gymnasium.Env`, which Gymnasium can multiply."""
    import gymnasium
    from dm_control import suite

    class Thin(gymnasium.Env):
        def __init__(self, **picture):
            self.render_mode, self.picture = picture.pop("render_mode", None), picture
            self.inner = suite.load(*name.split("-"))
            self.dt = self.inner.control_timestep()
            seen, acts = self.inner.observation_spec(), self.inner.action_spec()
            box = gymnasium.spaces.Box
            self.action_space = box(acts.minimum, acts.maximum, dtype=np.float64)
            spaces = {k: box(-np.inf, np.inf, v.shape, np.float64) for k, v in seen.items()}
            self.observation_space = gymnasium.spaces.Dict(spaces)

        def reset(self, *, seed=None, options=None):
            return self.inner.reset().observation, {}

        def step(self, action):
            step = self.inner.step(action)
            return step.observation, step.reward, False, step.last(), {}

        def render(self):
            return self.inner.physics.render(camera_id="side", **self.picture)

    gymnasium.register("Thin-v0", Thin, disable_env_checker=True)
    return gym("Thin-v0", kind)


def robosuite(name: str, kind: str) -> World:
    """robosuite with the Panda, without its Gymnasium wrapper except where that is checked."""
    import robosuite

    size, seen = SIZES.get(kind, 64), kind in SIZES
    env = robosuite.make(
        name, robots="Panda", has_renderer=False, has_offscreen_renderer=seen,
        use_camera_obs=seen, camera_heights=size, camera_widths=size,
    )  # fmt: skip
    if kind == "check":
        check(importlib.import_module("robosuite.wrappers.gym_wrapper").GymWrapper(env))
    supply = drawn(*env.action_spec, env.action_dim)
    env.reset()
    return World(lambda: env.step(next(supply))[2] and env.reset(), env.reset, env.control_timestep)


def minigrid(name: str, kind: str) -> World:
    """BabyAI on 8 x 8 tiles, so its picture of 84 pixels is one of 80; no physics."""
    import gymnasium

    if kind not in SIZES:
        return gym(f"minigrid:{name}", kind)
    env = gymnasium.make(f"minigrid:{name}")
    return single(env, None, lambda: env.unwrapped.get_frame(tile_size=SIZES[kind] // 8))


def envpool(name: str, kind: str) -> World:
    """EnvPool on as many threads as there are cores for many rows, on one for one."""
    import envpool

    rows, threads = (1, 1) if kind == "state" else (ROWS, len(os.sched_getaffinity(0)))
    env = envpool.make(name, env_type="gymnasium", num_envs=rows, num_threads=threads, seed=0)
    supply = actions(env.action_space, rows)
    dt = {"WalkerWalk-v1": 0.025, "CheetahRun-v1": 0.01, "PandaPickCube-v1": 0.02}[name]
    env.reset()
    return World(lambda: env.step(next(supply)), env.reset, dt, rows)


def playground(name: str, kind: str) -> World:
    """MuJoCo Playground by JAX on the CPU, compiled; no resets within the steps."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax
    from mujoco_playground import registry

    env = registry.load(name, config_overrides={"impl": "jax"})
    rows = 1 if kind == "state" else ROWS
    supply = drawn(-1, 1, rows, env.action_size, dtype=np.float32)
    begin, advance = jax.jit(jax.vmap(env.reset)), jax.jit(jax.vmap(env.step))
    keys = jax.random.split(jax.random.key(0), rows)
    states = [begin(keys)]

    def step():
        states[0] = advance(states[0], next(supply))
        states[0].obs.block_until_ready()

    step()
    return World(step, lambda: begin(keys).obs.block_until_ready(), env.dt, rows)


def metaworld(name: str, kind: str) -> World:
    """Meta-World's benchmark of one task, here pick-place."""
    return gym(name, kind, env_name="pick-place-v3", seed=0, camera_name="corner")


MAKERS = (gymnasium, dm_control, metaworld, robosuite, minigrid, envpool, playground)
PEERS = {make.__name__: make for make in MAKERS} | {"robotics": gym}


if __name__ == "__main__":
    peer, _, name = sys.argv[1].partition("/")
    serve(PEERS[peer], name, sys.argv[2])
