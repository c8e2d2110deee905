"""Negative: controls that must fail the gates, planted in what a model learns from, not in it.

A gate that lets one of them through says nothing of a model that passes it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .episodes import Episodes
from .shards import shard_names, write_shard

CONTROLS = {
    "untrained": "a model as it was made",
    "shuffled_rewards": "rewards that say nothing of what was done",
    "early_rewards": "each reward a step before the one that it was paid for",
    "late_rewards": "each reward a step after the one that it was paid for",
}


def plant(control: str, sources: list[Path], target: Path, seed: int = 0) -> Path:
    """Writes the sources' episodes into `target` with the rewards of a control; returns it.

    Nothing is written where `target` has episodes already. An early reward stands with the action
    that earned it, as in formats that keep it there; a first step's reward stays 0.
    """
    target.mkdir(parents=True, exist_ok=True)
    if shard_names(target):
        return target
    data = Episodes([str(s) for s in sources])
    episodes = [data.episode(i) for i in range(len(data))]
    if control == "shuffled_rewards":
        rewards = np.concatenate([e["reward"][1:] for e in episodes])
        np.random.Generator(np.random.PCG64(seed)).shuffle(rewards)
        ends = np.cumsum([len(e["reward"]) - 1 for e in episodes])
        for episode, part in zip(episodes, np.split(rewards, ends[:-1]), strict=True):
            episode["reward"][1:] = part
    elif control in ("early_rewards", "late_rewards"):
        for episode in episodes:
            paid = episode["reward"][1:].copy()
            early = np.concatenate([paid[1:], paid[-1:]])
            late = np.concatenate([[0], paid[:-1]])
            episode["reward"][1:] = early if control == "early_rewards" else late
    else:
        raise ValueError(f"{control!r} is planted in no episodes; {', '.join(CONTROLS)}")
    write_shard(target, 0, "{}", episodes)
    return target
