"""Gates: what a trained model must show, each a small function with a figure, a bound, a reason.

They judge one seed's model on episodes that nothing was learnt from; they train nothing, and how
the model came to be is not known here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .score import student

FALL = 0.1  # share of its first value that the loss must fall by
SHARE = 0.8  # of the seeds must pass
FORESEEN = 2 / 3  # of a step's change of reward
CONTEXT, AHEAD = 3, 5  # steps of an episode at least; steps that a belief then goes on alone
BATCHES = 4  # of held-out windows for a loss
WINDOWS = 1000  # at most, in which rewards are foreseen


@dataclass(frozen=True)
class Finding:
    """What a gate found of one seed; `figure` and `bound` are as the reason says."""

    gate: str
    passed: bool
    figure: float
    bound: float
    reason: str


# ---- that it is sound


def finite(metrics: list[dict], tensors: dict, episodes) -> Finding:
    """Holds every logged loss and gradient, every saved number and recorded action to be finite.

    metrics: the run's lines. tensors: of its checkpoint. episodes: Episodes, or None.
    """
    import torch

    logged = [v for m in metrics if m.get("kind") == "train" for v in m.values()]
    bad = sum(isinstance(v, float) and not math.isfinite(v) for v in logged)
    bad += sum(int((~torch.isfinite(t)).sum()) for t in tensors.values() if t.is_floating_point())
    for i in range(0 if episodes is None else len(episodes)):
        action = episodes.episode(i)["action"]
        bad += int((~np.isfinite(action) | (np.abs(action) > 1)).sum())
    reason = "losses, gradients, weights or actions that are no finite numbers"
    return Finding("finite", bad == 0, bad, 0, reason)


def parity(make, model, batch: dict, folder: Path) -> Finding:
    """Holds a model that was saved and loaded to the same predictions and the same next update.

    make() returns a new model of the same config. The model is changed by an update.
    """
    import torch

    from . import checkpoint

    twin = make()
    path = checkpoint.save(folder, 0, model.checkpoint(), {}, {})
    twin.restore(checkpoint.load(path)[0])
    ours, theirs = (_answers(m, batch) for m in (model, twin))
    differ = [k for k in ours if not torch.equal(ours[k], theirs[k])]
    reason = "predictions, metrics and tensors that differ after save and load"
    if differ:
        reason += f", such as {differ[0]}"
    return Finding("save and load", not differ, len(differ), 0, reason)


def _answers(model, batch: dict) -> dict:
    """Returns all that a model says of a batch, and what an update makes of it."""
    import torch

    rng = torch.Generator(model.device).manual_seed(0)
    rows = batch["action"].shape[0]
    with torch.no_grad():
        step, led = {k: v[:, 0] for k, v in batch.items()}, torch.zeros_like(batch["action"][:, 0])
        belief = model.observe(model.start(rows), led, step, rng)
        found = {f"belief/{k}": v for k, v in belief.items()}
        after, reward, alive = model.imagine(belief, batch["action"][:, 0], rng)
        found |= {f"after/{k}": v for k, v in after.items()}
        found |= {"reward": reward, "alive": alive, "value": model.value(after, rng)}
        action = model.propose(after, rng)
        found |= {} if action is None else {"proposal": action}
        found |= {f"decoded/{k}": v for k, v in model.decode(after).items()}
    found |= {f"metric/{k}": v for k, v in model.update(batch).items()}
    return found | {f"then/{k}": v for k, v in model.checkpoint().items()}


# ---- that it has learnt


def loss_floor(first: float, last: float) -> Finding:
    """Holds the loss on held-out windows to have fallen by a tenth of what it was untrained."""
    fall = 1 - last / first if first > 0 else -math.inf
    reason = f"share by which the held-out loss fell, {first:.3g} to {last:.3g}"
    return Finding("loss falls", fall >= FALL, fall, FALL, reason)


def held_out_loss(make, tensors: dict | None, episodes) -> float:
    """Returns the loss on held-out windows, of a new model with the tensors, or untrained.

    Every batch meets the model as it was saved; it is the model's `total_loss`, or the sum of all
    its metrics called `..._loss`.
    """
    model, rng, losses = make(), np.random.default_rng(0), []
    saved = model.checkpoint() if tensors is None else tensors
    for _ in range(BATCHES):
        model.restore(saved)
        metrics = model.update(sample(model, episodes, rng))
        parts = [v for k, v in metrics.items() if k.endswith("_loss")]
        losses.append(float(metrics["total_loss"] if "total_loss" in metrics else sum(parts)))
    return float(np.mean(losses))


def sample(model, episodes, rng: np.random.Generator) -> dict:
    """Returns a batch of windows for the model, `{key: (b, t, ...)}`, as tensors on its device."""
    import torch

    batch = episodes.sample(rng, model.batch_size, model.window)
    return {k: torch.from_numpy(v).to(model.device) for k, v in batch.items()}


@dataclass(frozen=True)
class Rewards:
    """Rewards that a model foresaw in windows, beside those that were paid, all (windows, h).

    `before` and `after` were paid a step earlier and later; `episode` (windows,) is whose.
    """

    foreseen: np.ndarray
    paid: np.ndarray
    before: np.ndarray
    after: np.ndarray
    episode: np.ndarray


def rewards(model, episodes, context: int = CONTEXT, ahead: int = AHEAD) -> Rewards:
    """Lets a belief follow each episode, and go on by the actions alone from places along it.

    context: steps of an episode that are followed at least.
    """
    import torch

    from .world_models.foresight import foresee, lead

    places = episodes.windows(context + ahead + 1, 2)
    places = places[:: -(-len(places) // WINDOWS)]
    batch = episodes.take(places, context + ahead + 1)
    seen = {k: torch.from_numpy(v[:, :-1]) for k, v in batch.items()}
    rng = torch.Generator(model.device).manual_seed(0)
    before = lead(model, episodes, places, rng)
    told = foresee(model, seen, context, rng, before).reward.double().numpy().T
    paid = batch["reward"].astype(float)
    parts = (paid[:, context + lag : context + ahead + lag] for lag in (0, -1, 1))
    return Rewards(told, *parts, places[:, 0])


def reward_accuracy(seen: Rewards) -> Finding:
    """Holds the predicted rewards to be nearer than their mean is, at each step ahead.

    The figure is the least, over the steps ahead, of the variance's explained share; an episode's
    mean gain over predicting the mean must be above 0 with 95 % confidence at each of them.
    """
    plain = (seen.paid - seen.paid.mean(0)) ** 2
    gain = plain - (seen.foreseen - seen.paid) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        explained = gain.mean(0) / plain.mean(0)
    least = [student(x)[0] for x in _per_episode(gain, seen.episode).T]
    shown = ", ".join(f"{x:.2f}" for x in explained)
    reason = f"reward's variance explained 1 to {len(least)} steps ahead: {shown}"
    passed = bool(np.isfinite(explained).all()) and min(least) > 0
    return Finding("reward accuracy", passed, float(explained.min()), 0, reason)


def alignment(seen: Rewards) -> Finding:
    """Holds the foreseen rewards to be those of the step they are for, not of one beside it.

    Of what the reward changes by from either neighbour to the step, the figure is the share that
    was foreseen, the lesser one: 1 for the truth, 0 for the neighbour's own reward, more than a
    half where the step is the nearer. It must be above two thirds with 95 % confidence over
    episodes. A constant error says nothing of time and does not count.
    """
    shares, least = [], []
    for beside in (seen.before, seen.after):
        change, foreseen = seen.paid - beside, seen.foreseen - beside
        change, foreseen = change - change.mean(0), foreseen - foreseen.mean(0)
        surplus = _per_episode(change * foreseen - FORESEEN * change**2, seen.episode).mean(1)
        shares.append(float((change * foreseen).sum() / max((change**2).sum(), 1e-12)))
        least.append(student(surplus)[0])
    said = "foreseen share of the reward's change from the step before, {:.2f}, and after, {:.2f}"
    return Finding("alignment", min(least) > 0, min(shares), FORESEEN, said.format(*shares))


def _per_episode(values: np.ndarray, episode: np.ndarray) -> np.ndarray:
    """Returns the mean over each episode's windows, (episodes, h)."""
    return np.stack([values[episode == e].mean(0) for e in np.unique(episode)])


# ---- that it acts


def beats_random(agent: dict, random: dict, expert: dict | None) -> Finding:
    """Holds the agent's return in the real world to be above random's: their 95 % intervals apart.

    agent, random, expert: summaries of a Score over the same held-out seeds.
    """
    gap = agent["return_interval"][0] - random["return_interval"][1]
    reason = f"return {_said(agent)}, random {_said(random)}"
    reason += f", expert {_said(expert)}" if expert else ""
    return Finding("real return", gap > 0, agent["return"], random["return_interval"][1], reason)


def _said(summary: dict) -> str:
    low, high = summary["return_interval"]
    return f"{summary['return']:.1f} ({low:.1f} to {high:.1f})"


# ---- over the seeds


def over_seeds(found: list[list[Finding]]) -> list[dict]:
    """Returns each gate over the seeds, and that at least 80 % of the seeds pass all of them.

    A model that is not sound fails by one seed; in what is learnt, 20 % of the seeds may.
    """
    gates = []
    for parts in zip(*found, strict=True):
        passing = [p.passed for p in parts]
        sound = parts[0].gate in ("finite", "save and load")
        passed = all(passing) if sound else np.mean(passing) >= SHARE
        worst = min(parts, key=lambda p: (p.passed, p.figure))
        gates.append({
            "gate": parts[0].gate, "passed": bool(passed), "figures": [p.figure for p in parts],
            "bound": worst.bound, "reason": worst.reason,
        })  # fmt: skip
    share = float(np.mean([all(p.passed for p in parts) for parts in found]))
    reason = f"share of {len(found)} seeds that pass every gate"
    seeds = {"gate": "seeds", "passed": share >= SHARE, "figures": [share], "bound": SHARE}
    return [*gates, seeds | {"reason": reason}]
