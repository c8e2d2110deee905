"""Foresight: what a world model believes of the next steps, beside what it would have seen.

It takes windows of recorded steps `{key: (b, t, ...)}`. The first `context` are observed, and with
a `Lead` all that came before them in their episodes; from the last of those on (k = 0) the model
goes on twice: with its eyes open, and by the recorded actions alone. Results are (H + 1, b, ...)
for k = 0 ... H, where H = t - context. It knows no one model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .model import Belief, WorldModel
from .readout import Scale

AT_ONCE = 256  # windows that go through a model together
_EXACT = "donot_use_mm_for_euclid_dist"  # the quick way tells equal vectors apart
NEAREST = 5  # of recall


@dataclass(frozen=True)
class Foresight:
    """Beliefs along b windows, `{key: (H + 1, b, ...)}`; what is imagined of rewards, (H, b).

    And `alive`, (H, b): the probability that the step does not end an episode.
    """

    seen: Belief
    dreamt: Belief
    reward: Tensor
    alive: Tensor


@dataclass(frozen=True)
class Lead:
    """What is believed just before b windows, `{key: (b, ...)}`, and the action (b, nu) done then.

    A model that was to find its way into the middle of an episode would be asked what no one asks
    of it who acts from the beginning on.
    """

    belief: Belief
    action: Tensor


@torch.no_grad()
def lead(model: WorldModel, episodes, windows: np.ndarray, rng: torch.Generator) -> Lead:
    """Returns the Lead to windows (b, 2), after all steps of their episodes that come before.

    episodes: an `Episodes`, whose `windows` and `take` name windows by episode and first step.
    """
    which, row = np.unique(windows[:, 0], return_inverse=True)
    row, end = row.reshape(-1), episodes.lengths[which] - 1
    belief, found = model.start(len(which)), {}
    action = torch.zeros(len(which), model.nu, device=model.device)
    kept = torch.zeros(len(windows), model.nu, device=model.device)
    for t in range(int(windows[:, 1].max()) + 1):
        here = torch.from_numpy(np.flatnonzero(windows[:, 1] == t)).to(model.device)
        of = torch.from_numpy(row).to(model.device)[here]
        for key, x in belief.items() if len(here) else ():
            found.setdefault(key, x.new_empty(len(windows), *x.shape[1:]))[here] = x[of]
        kept[here] = action[of]
        taken = episodes.take(np.stack([which, np.minimum(t, end)], 1), 1)
        step = {k: torch.from_numpy(v[:, 0]).to(model.device) for k, v in taken.items()}
        belief, action = model.observe(belief, action, step, rng), step["action"]
    return Lead(found, kept)


@torch.no_grad()
def foresee(
    model: WorldModel,
    windows: dict[str, Tensor],
    context: int,
    rng: torch.Generator,
    before: Lead | None = None,
) -> Foresight:
    """Returns what `model` believes along the windows, with open and with shut eyes.

    before: without it, nothing is believed but what windows show. Beliefs hold the keys that
    `imagine` returns, on the CPU. One draw is imagined where a model draws. Raises ValueError where
    windows are not longer than `context`, or that is below 1.
    """
    b, t = windows["action"].shape[:2]
    if not 1 <= context < t:
        raise ValueError(f"context {context} of windows of {t} steps; it is 1 to {t - 1}")
    before = before or Lead(model.start(b), torch.zeros_like(windows["action"][:, 0]))
    parts = [
        _foresee(model, _cut(windows, i), context, rng, _cut(before.belief, i), before.action[i:])
        for i in range(0, b, AT_ONCE)
    ]
    seen, dreamt = (
        {k: torch.cat([getattr(p, side)[k] for p in parts], 1) for k in getattr(parts[0], side)}
        for side in ("seen", "dreamt")
    )
    reward, alive = (torch.cat([getattr(p, k) for p in parts], 1) for k in ("reward", "alive"))
    return Foresight(seen, dreamt, reward, alive)


def _foresee(model, windows, context: int, rng, belief: Belief, action: Tensor) -> Foresight:
    windows = {k: v.to(model.device) for k, v in windows.items()}
    b, t = windows["action"].shape[:2]
    action, seen = action[:b].to(model.device), []
    for i in range(t):
        belief = model.observe(belief, action, {k: v[:, i] for k, v in windows.items()}, rng)
        action = windows["action"][:, i]
        if i >= context - 1:
            seen.append(belief)
    dreamt, rewards, alives = seen[:1], [], []
    for i in range(context - 1, t - 1):
        belief, reward, alive = model.imagine(dreamt[-1], windows["action"][:, i], rng)
        dreamt, rewards, alives = [*dreamt, belief], [*rewards, reward], [*alives, alive]
    keys = belief.keys()  # memory that only eyes fill is no part of what is imagined
    stacked = ({k: torch.stack([x[k] for x in xs]).cpu() for k in keys} for xs in (seen, dreamt))
    return Foresight(*stacked, torch.stack(rewards).cpu(), torch.stack(alives).cpu())


def features(belief: Belief) -> Tensor:
    """Returns beliefs `{key: (H + 1, b, ...)}` as vectors (H + 1, b, d) float64.

    What is a whole number, such as which task a row has, names and measures nothing.
    """
    parts = [belief[k] for k in sorted(belief) if belief[k].is_floating_point()]
    return torch.cat([x.double().reshape(*x.shape[:2], -1) for x in parts], 2)


@torch.no_grad()
def decode(model: WorldModel, belief: Belief) -> dict[str, Tensor]:
    """Returns what the model says of the observations, `{key: (H + 1, b, ...)}`, on the CPU."""
    flat = {k: v.flatten(0, 1).to(model.device) for k, v in belief.items()}
    lead = next(iter(belief.values())).shape[:2]
    parts = [
        {k: v.cpu() for k, v in model.decode(_cut(flat, i)).items()}
        for i in range(0, lead.numel(), AT_ONCE)
    ]
    return {k: torch.cat([p[k] for p in parts]).unflatten(0, lead) for k in parts[0]}


def _cut(tensors: dict[str, Tensor], at: int) -> dict[str, Tensor]:
    return {k: v[at : at + AT_ONCE] for k, v in tensors.items()}


def future(x: Tensor, context: int) -> Tensor:
    """Returns the truth (b, t, ...) of windows at k = 0 ... H, (H + 1, b, ...)."""
    return x[:, context - 1 :].movedim(1, 0)


def persistence(x: Tensor, context: int) -> Tensor:
    """Returns what windows would be if all stayed as last observed, (H + 1, b, ...)."""
    return x[:, context - 1].expand(x.shape[1] - context + 1, *x[:, 0].shape)


def velocity(x: Tensor, context: int) -> Tensor:
    """Returns what windows would be if all went on as between the last two steps observed.

    Raises ValueError where fewer than two are.
    """
    if context < 2:
        raise ValueError(f"context {context} tells no velocity; observe 2 steps or more")
    last, before = x[:, context - 1].double(), x[:, context - 2].double()
    k = torch.arange(x.shape[1] - context + 1, dtype=torch.float64)
    return last + k.view(-1, *[1] * last.ndim) * (last - before)


def squared_errors(told: Tensor, truth: Tensor, std: Tensor) -> Tensor:
    """Returns squared errors (H + 1, b) in units of deviations std (...), the mean over them.

    Components of no deviation do not count. A prediction of the mean has error 1 on average.
    """
    live = (std > 0).flatten()
    inverse = 1 / std.flatten()[live].double()
    rows = zip(told.flatten(2), truth.flatten(2), strict=True)  # k by k: images are many numbers
    gaps = [((a[:, live].double() - b[:, live].double()) * inverse) for a, b in rows]
    return torch.stack([gap.square().mean(1) for gap in gaps])


def deviations(x: Tensor, pooled: bool = False) -> Tensor:
    """Returns the standard deviations of what steps (m, ...) hold, in their shape.

    pooled: one for all, the root of the mean variance, as for images and beliefs.
    """
    shape, flat = x.shape[1:], x.flatten(1).double()
    if pooled:
        return flat.var(0, correction=0).mean().sqrt().expand(shape)
    return Scale.of(flat).std.view(shape)


def per_episode(x: Tensor, episode: Tensor) -> Tensor:
    """Returns the means (E, k) over each episode's windows of x (k, b); episode (b,) below E."""
    sums = torch.zeros(int(episode.max()) + 1, len(x), dtype=torch.float64)
    sums.index_add_(0, episode, x.T.double())
    return sums / torch.bincount(episode)[:, None]


def reliability(told: Tensor, came: Tensor, bins: int = 10) -> dict[str, list]:
    """Returns what came of probabilities told (m,), by tenths: their mean, how often, how many.

    came: (m,) bool. Tenths in which nothing was told are left out.
    """
    tenth = (told.double() * bins).long().clamp(0, bins - 1)
    groups = [tenth == i for i in range(bins) if (tenth == i).any()]
    return {
        "told": [float(told[g].double().mean()) for g in groups],
        "came": [float(came[g].double().mean()) for g in groups],
        "steps": [int(g.sum()) for g in groups],
    }


def ranks(query: Tensor, pool: Tensor) -> Tensor:
    """Returns the rank (H + 1, b), from 1, of each window's own belief in `pool` by distance.

    query, pool: vectors (H + 1, b, d); at each k the b beliefs of the pool compete, of other
    episodes and of other times. Of equally near ones the mean rank is returned.
    """
    found = []
    for q, p in zip(query, pool, strict=True):
        far = torch.cdist(q, p, compute_mode=_EXACT)
        own = far.diagonal()[:, None]
        found.append(1 + (far < own).sum(1) + ((far == own).sum(1) - 1) / 2)
    return torch.stack(found)


def retrieval(query: Tensor, pool: Tensor) -> dict[str, Tensor]:
    """Returns `mrr` and `recall@5`, (H + 1, b) each, of finding the true future belief."""
    rank = ranks(query, pool)
    return {"mrr": 1 / rank, f"recall@{NEAREST}": (rank <= NEAREST).double()}


def lucky(b: int) -> dict[str, float]:
    """Returns the mean of `retrieval` among b beliefs where all ranks are equally likely."""
    mrr = sum(1 / r for r in range(1, b + 1)) / b
    return {"mrr": mrr, f"recall@{NEAREST}": min(NEAREST / b, 1.0)}


def order(dreamt: Tensor, seen: Tensor) -> Tensor:
    """Returns how surely a belief imagined lies in its own time, (H + 1, b) in [0, 1].

    The share of the window's other steps whose observed belief is farther from it than that of its
    own step; 0.5 is chance, and where nothing moves.
    """
    far = torch.cdist(
        dreamt.movedim(1, 0), seen.movedim(1, 0), compute_mode=_EXACT
    )  # (b, H + 1, H + 1)
    own = far.diagonal(dim1=1, dim2=2)[..., None]
    farther = (far > own).double() + 0.5 * (far == own)
    return ((farther.sum(2) - 0.5) / (far.shape[2] - 1)).T


def pace(dreamt: Tensor, seen: Tensor, episode: Tensor) -> Tensor:
    """Returns the length of imagined steps by that of observed ones, (E, H); 1 moves as it should.

    Of all episodes together, as jackknife pseudo-values; nan where nothing moves.
    """
    lengths = [per_episode(x.diff(dim=0).norm(dim=2), episode) for x in (dreamt, seen)]
    (told, real), (all_told, all_real) = lengths, (x.sum(0) for x in lengths)
    whole, without = all_told / all_real, (all_told - told) / (all_real - real)
    return len(told) * whole - (len(told) - 1) * without


def dimensions(x: Tensor) -> float:
    """Returns how many dimensions vectors (..., d) fill: (sum of variances)² / sum of squares.

    Of the covariance's eigenvalues: their participation ratio.
    """
    flat = x.flatten(0, -2).double()
    flat = flat - flat.mean(0)
    gram = flat.T @ flat if flat.shape[1] <= len(flat) else flat @ flat.T
    return float(gram.trace() ** 2 / gram.square().sum())


def truth(windows: dict[str, Tensor], context: int) -> dict[str, Tensor]:
    """Returns the labels of windows as vectors, `{name: (H + 1, b, d)}`, without `label/`.

    A pose is two: `pose/place` (m) and `pose/turn`, the rotation matrix, which has no double cover.
    """
    found = {k[6:]: future(v, context) for k, v in windows.items() if k.startswith("label/")}
    if "pose" in found:
        pose = found.pop("pose").double()
        found |= {"pose/place": pose[..., :3], "pose/turn": _matrix(pose[..., 3:])}
    return {k: v.reshape(*v.shape[:2], -1) for k, v in found.items()}


def _matrix(q: Tensor) -> Tensor:
    """Returns rotation matrices (..., 9) of unit quaternions (..., 4), w first."""
    w, x, y, z = q.unbind(-1)
    entries = (
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    )  # fmt: skip
    return torch.stack(entries, -1)
