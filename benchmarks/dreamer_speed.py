"""Speed of DreamerV3 on a CPU: updates and actions per second, beside r2dreamer where given.

    python benchmarks/dreamer_speed.py                                    ours alone
    python benchmarks/dreamer_speed.py --r2dreamer /path/to/r2dreamer     both, in turns

What dreamer_parity.py says of r2dreamer holds here too: size 1 of the authors' table, float32, no
torch.compile on either side (on a CPU it would autocast to float16, which is slower still). Both
sides take turns call by call, so that whatever else the machine does reaches both; medians are
compared. 24 observations, 6 actions, batches of 16 x 64, horizon 15, all settings as published.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from dreamer_parity import NU, OBSERVED, peer, space, windows
from tdmpc2_speed import compare

from record import record
from umwelten.agents.planners import Prior
from umwelten.train import keep_memory
from umwelten.world_models.dreamer import DreamerV3

BATCH, LENGTH = 16, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--r2dreamer", type=Path, help="a clone of the repository")
    parser.add_argument("--rounds", type=int, default=15, help="calls of each side per case")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_memory()  # for both sides
    results = {"threads": arguments.threads, "rounds": arguments.rounds, "cases": []}
    for case, sides in cases(arguments.r2dreamer).items():
        row = {"size": 1, "case": case} | compare(sides, arguments.rounds)
        results["cases"].append(row)
        print({k: round(v, 2) if isinstance(v, float) else v for k, v in row.items()})
    print(record("dreamer_speed", results))


def place() -> torch.Tensor:
    """Returns where the windows of a batch lie, one behind the other, as a Replay says it."""
    return (torch.arange(BATCH) * LENGTH)[:, None] + torch.arange(-1, LENGTH)


def cases(clone: Path | None) -> dict[str, dict[str, tuple[Callable, int]]]:
    """Returns what is measured: for each case and side, a call and how many it counts for."""
    model = DreamerV3(space(), NU)
    batch = windows(BATCH, LENGTH) | {"place": place()}
    found = {"update": {"ours": (lambda: model.update(batch), 1)}}
    for n in (1, 16):
        found[f"act n={n}"] = {"ours": (acting(model, n), n)}
    if clone is not None:
        agent = peer(clone, 4e-5)
        found["update"]["r2dreamer"] = (updating(agent, batch), 1)
        for n in (1, 16):
            found[f"act n={n}"]["r2dreamer"] = (peer_acting(agent, n), n)
    return found


def acting(model: DreamerV3, n: int) -> Callable:
    """Returns a call that follows n worlds by one step and draws their actions."""
    policy = Prior(model, explore=True)
    seen = np.random.default_rng(0).normal(size=(n, OBSERVED)).astype(np.float32)
    step, carry = {"proprio": seen, "first": np.zeros(n, bool)}, policy.start(np.arange(n))
    return lambda: policy.act(step, carry)


def peer_acting(agent, n: int) -> Callable:
    """Returns what `acting` does, with the copies of the observation and the action."""
    seen = np.random.default_rng(0).normal(size=(n, OBSERVED)).astype(np.float32)
    first, state = np.zeros(n, bool), agent.get_initial_state(n)

    def act():
        step = {"proprio": torch.as_tensor(seen), "is_first": torch.as_tensor(first)}
        action, _ = agent.act(step, state)
        return action.numpy()

    return act


def updating(agent, batch: dict[str, torch.Tensor]) -> Callable:
    """Returns a call that does all that its update does but for the replay buffer."""
    import tensordict

    data = {
        "proprio": batch["proprio"], "action": batch["action"], "is_first": batch["first"],
        "reward": batch["reward"][..., None], "is_last": batch["last"][..., None],
        "is_terminal": batch["terminal"][..., None],
    }  # fmt: skip
    data = tensordict.TensorDict(data, batch_size=(BATCH, LENGTH))
    start = agent.rssm.initial(BATCH)

    def update():
        agent._update_slow_target()
        agent._cal_grad(data, start)
        agent._agc(agent._named_params.values())
        agent._optimizer.step()
        agent._scheduler.step()
        agent._optimizer.zero_grad(set_to_none=True)

    return update


if __name__ == "__main__":
    main()
