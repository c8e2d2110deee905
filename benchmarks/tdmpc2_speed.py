"""Speed of TD-MPC2 on a CPU: updates and plans per second, beside the authors' code where given.

    python benchmarks/tdmpc2_speed.py                                   ours alone
    python benchmarks/tdmpc2_speed.py --official /path/to/tdmpc2        both, in turns

The authors' code needs `pip install tensordict torchrl` besides our own packages. It is written
for one CUDA device: from outside, that device is made the CPU, Adam's capturable mode (CUDA only)
is off, and its copy to the device, a copy to where it is, does nothing. It runs without
torch.compile, as ours does. Both sides take turns call by call, so that whatever else the machine
does reaches both; medians are compared. 24 observations, 6 actions, all settings as published.
"""

from __future__ import annotations

import argparse
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np
import torch

from record import record
from umwelten.agents.planners import MPPI
from umwelten.world_models.tdmpc2 import TDMPC2

OBSERVED, NU, BATCH = 24, 6, 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--official", type=Path, help="a clone of the authors' repository")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--rounds", type=int, default=15, help="calls of each side per case")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--name", default="tdmpc2_speed", help="of the file in results/")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results = {"threads": arguments.threads, "rounds": arguments.rounds, "cases": []}
    for size in arguments.sizes:
        for case, sides in cases(size, arguments.official).items():
            row = {"size": size, "case": case} | compare(sides, arguments.rounds)
            results["cases"].append(row)
            print({k: round(v, 2) if isinstance(v, float) else v for k, v in row.items()})
    print(record(arguments.name, results))


def cases(size: int, clone: Path | None) -> dict[str, dict[str, tuple[Callable, int]]]:
    """Returns what is measured: for each case and side, a call and how many it counts for."""
    model = TDMPC2(space(), NU, size, batch_size=BATCH)
    batch = windows(model.window)
    found = {
        "update": {"ours": (lambda: model.update(batch), 1)},
        "plan n=1": {"ours": (planning(model, 1), 1)},
        "plan n=16": {"ours": (planning(model, 16), 16)},
    }
    if clone is not None:
        agent, inputs, seen = official(clone, size), transitions(batch), torch.randn(OBSERVED)
        found["update"]["official"] = (lambda: agent._update(*inputs), 1)
        found["plan n=1"]["official"] = (lambda: agent.act(seen), 1)
        # It plans for one world at a time: sixteen are sixteen calls.
        found["plan n=16"]["official"] = (lambda: agent.act(seen), 1)
    return found


def compare(sides: dict[str, tuple[Callable, int]], rounds: int) -> dict[str, float]:
    """Returns each side's rate (1/s, from the median call), and how often ours is the faster."""
    seconds = {name: [] for name in sides}
    for i in range(rounds + 2):
        for name, (call, count) in sides.items():
            begin = time.perf_counter()
            call()
            if i >= 2:  # the first calls compile kernels and fill caches
                seconds[name].append((time.perf_counter() - begin) / count)
    row = {f"{name} per second": 1 / float(np.median(s)) for name, s in seconds.items()}
    row |= {f"{name} best per second": 1 / min(s) for name, s in seconds.items()}
    if len(seconds) == 2:
        (other,) = seconds.keys() - {"ours"}
        row["ratio"] = row["ours per second"] / row[f"{other} per second"]
        row["best ratio"] = row["ours best per second"] / row[f"{other} best per second"]
    return row


def space() -> gymnasium.spaces.Dict:
    box = gymnasium.spaces.Box(-np.inf, np.inf, (OBSERVED,), np.float32)
    return gymnasium.spaces.Dict(proprio=box)


def windows(t: int) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return {
        "proprio": torch.randn(BATCH, t, OBSERVED, generator=rng),
        "action": torch.rand(BATCH, t, NU, generator=rng) * 2 - 1,
        "reward": torch.rand(BATCH, t, generator=rng),
        "terminal": torch.zeros(BATCH, t, dtype=torch.bool),
        "first": torch.zeros(BATCH, t, dtype=torch.bool),
        "last": torch.zeros(BATCH, t, dtype=torch.bool),
    }


def transitions(batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Returns our windows as the authors' code reads them: time first, actions before rewards."""
    swapped = {k: v.transpose(0, 1) for k, v in batch.items()}
    parts = swapped["proprio"], swapped["action"][:-1], swapped["reward"][1:, :, None]
    return *(p.contiguous() for p in parts), swapped["terminal"][1:, :, None].float()


def planning(model: TDMPC2, n: int) -> Callable:
    """Returns a call that acts once in n worlds."""
    policy = MPPI(model, explore=True)
    step = {
        "proprio": np.random.default_rng(0).normal(size=(n, OBSERVED)).astype(np.float32),
        "first": np.zeros(n, bool),
    }
    carry = policy.start(np.arange(n))
    return lambda: policy.act(step, carry)


def official(clone: Path, size: int, dropout: float = 0.01):
    """Returns the authors' agent on the CPU; nothing in the clone is changed."""
    sys.path.insert(0, str(clone / "tdmpc2"))
    import common
    import common.layers
    import common.world_model
    import omegaconf
    import tdmpc2

    raw = omegaconf.OmegaConf.load(clone / "tdmpc2" / "config.yaml")
    raw = omegaconf.OmegaConf.to_container(raw, resolve=False)
    values = {k: v for k, v in raw.items() if v != "???"}
    values |= {"lr": 3e-4, "entropy_coef": 1e-4, "vmin": -10, "vmax": 10, "bin_size": 0.2}
    values |= {"multitask": False, "task_dim": 0, "compile": False, "episode_length": 500}
    values |= {"obs_shape": {"state": (OBSERVED,)}, "action_dim": NU, "batch_size": BATCH}
    values["dropout"] = dropout
    config = types.SimpleNamespace(**values | common.MODEL_SIZE[size])
    config.get = lambda key, default=None: getattr(config, key, default)

    def to(self, *_):
        self.init()
        return self

    real = torch.device
    common.world_model.WorldModel.to = to
    common.layers.enc.__defaults__ = ({},)  # a mutable default would share encoders among agents
    torch.device = lambda name, *rest: real("cpu" if "cuda" in str(name) else name, *rest)
    try:
        agent = tdmpc2.TDMPC2(config)
    finally:
        torch.device = real
    for optimiser in (agent.optim, agent.pi_optim):
        for group in optimiser.param_groups:
            group["capturable"] = False
    return agent


if __name__ == "__main__":
    main()
