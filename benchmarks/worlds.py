"""Worlds: what one seeded episode of every task comes to, to the bit; writes results/worlds.json.

Other bits under the same versions mean that a world has changed: then its `version` is to change,
or the change is to go. Other versions or processors may have other bits, but not other figures.
"""

from __future__ import annotations

import hashlib

import mujoco
import numpy as np
from numpy._core._multiarray_umath import __cpu_features__

from record import record
from umwelten import registry
from umwelten.envs.env import BatchEnv

STEPS = 10


def makers() -> dict[str, str]:
    """Returns what decides the bits of arithmetic here: versions and what the processor can do."""
    able = " ".join(sorted(name for name, has in __cpu_features__.items() if has))
    return {"mujoco": mujoco.__version__, "numpy": np.__version__, "processor": able}


def outcome(name: str) -> dict:
    """Returns a hash of an episode's first steps under random actions, and figures of their end.

    Figures: rewards, |positions|, |velocities| and |observations|, each added up.
    """
    env = BatchEnv(name, 1, nthread=1)
    obs, _ = env.reset(seed=0)
    rng, told, paid = np.random.default_rng(0), hashlib.sha256(), 0.0
    for _ in range(STEPS):
        for key in sorted(obs):
            told.update(obs[key].tobytes())
        action = rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)
        obs, reward, *_ = env.step(action)
        told.update(reward.tobytes())
        paid += float(reward[0])
    told.update(env.physics().tobytes())
    seen = sum(float(np.abs(v.astype(float)).sum()) for k, v in obs.items() if k != "instruction")
    ends = (float(np.abs(x).sum()) for x in (env.sim.qpos, env.sim.qvel))
    return {"sha256": told.hexdigest(), "figures": [paid, *ends, seen]}


if __name__ == "__main__":
    tasks = {name: outcome(name) for name in sorted(registry.members("envs"))}
    record("worlds", {"steps": STEPS, "makers": makers(), "tasks": tasks})
