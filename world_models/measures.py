"""Measures: what a world model knows, an episode at a time, beside what costs nothing to know.

Curves are (E, H + 1): a value for each held-out episode and each step k since the last one that was
observed. It records nothing and draws nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from . import foresight
from .foresight import Foresight, features, foresee, future, lead, per_episode
from .model import WorldModel
from .readout import Probes, Reading

PARTS = ("fit", "validate", "test")


@dataclass(frozen=True)
class Part:
    """Windows `{key: (b, t, ...)}` of some episodes; the episode of each, (b,) int64 below E.

    whole: the Episodes that they are of and their names there (b, 2), for beliefs that follow each
    episode from its first step on; without it they know of windows alone.
    """

    windows: dict[str, Tensor]
    episode: Tensor
    whole: tuple | None = None

    def foreseen(self, model: WorldModel, context: int, rng: torch.Generator) -> Foresight:
        """Returns what a model believes along the windows."""
        before = None if self.whole is None else lead(model, *self.whole, rng)
        return foresee(model, self.windows, context, rng, before)


@dataclass(frozen=True)
class Views:
    """What was imagined of the test's windows: `{key: (H + 1, b, ...)}`, beside the truth."""

    truth: dict[str, Tensor]
    dreamt: dict[str, Tensor]
    episode: Tensor


class Measured:
    """What one model believes of the windows of the three parts, and all that follows from it.

    parts: "fit" and "validate" for the readouts, "test" for every number. observed: the keys that
    are measured, vectors (b, t, d) and images (b, t, h, w, 3). Raises ValueError as `foresee`.
    """

    def __init__(
        self,
        model: WorldModel,
        parts: dict[str, Part],
        observed: tuple[str, ...],
        context: int,
        rng: torch.Generator,
    ):
        self.parts, self.context = parts, context
        self.found = {p: parts[p].foreseen(model, context, rng) for p in PARTS}
        self.seen = {p: features(self.found[p].seen) for p in PARTS}
        self.dreamt = features(self.found["test"].dreamt)
        test = self.found["test"]
        self.vectors = tuple(k for k in observed if parts["test"].windows[k].ndim == 3)
        told = foresight.decode(model, test.seen), foresight.decode(model, test.dreamt)
        self._told = [{k: v for k, v in side.items() if k in observed} for side in told]
        self.decoded = tuple(self._told[0])
        if unread := [k for k in self.vectors if k not in self.decoded]:
            reader = Probes(*(self._pairs(p, self._vectors(p, unread)) for p in PARTS[:2]))
            for side, x in zip(self._told, (self.seen["test"], self.dreamt), strict=True):
                side |= reader.values(x)

    def _vectors(self, part: str, keys) -> dict[str, Tensor]:
        return {k: future(self.parts[part].windows[k], self.context) for k in keys}

    def _pairs(self, part: str, ys: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the part's observed beliefs, and what belongs to each, as rows."""
        return self.seen[part].flatten(0, 1), {k: v.flatten(0, 1) for k, v in ys.items()}

    def views(self) -> Views:
        """Returns what the test's windows were, and were imagined to be."""
        part = self.parts["test"]
        real = {k: future(part.windows[k], self.context) for k in self._told[1]}
        return Views(real, self._told[1], part.episode)

    def _recorded(self, part: str) -> Tensor:
        """Returns the vectors of each step and the action that led to it, (H + 1, b, d)."""
        action = self.parts[part].windows["action"]
        led = torch.cat([torch.zeros_like(action[:, :1]), action[:, :-1]], 1)
        parts = [*self._vectors(part, self.vectors).values(), future(led, self.context)]
        return torch.cat(parts, 2)

    def errors(self) -> dict[str, dict]:
        """Returns open-loop errors by key, in deviations: 1 is that of predicting the mean.

        Each has `by` (decoder or readout) and curves: `imagined`, `observed` (what the same
        decoder makes of a belief that saw the step), `held` (of the last belief that saw one, as
        if all stayed), and without a model `persistence` and, of vectors, `velocity`. The readout
        is a ridge regression. A key that does not vary is left out.
        """
        return {k: self._error(k) for k in self._told[0] if self._std(k).any()}

    def _std(self, key: str) -> Tensor:
        fit = self.parts["fit"].windows[key].flatten(0, 1)
        return foresight.deviations(fit, pooled=key not in self.vectors)

    def _error(self, key: str) -> dict:
        part, std = self.parts["test"], self._std(key)
        x = part.windows[key]
        tries = {
            "imagined": self._told[1][key],
            "observed": self._told[0][key],
            "held": self._told[0][key][:1].expand(self._told[0][key].shape),
            "persistence": foresight.persistence(x, self.context),
        }
        if key in self.vectors:
            tries["velocity"] = foresight.velocity(x, self.context)
        curves = {k: self._curve(v, future(x, self.context), std) for k, v in tries.items()}
        by = "decoder" if key in self.decoded else "readout"
        return {"by": by, "constant": int((std == 0).sum()), **curves}

    def _curve(self, told: Tensor, real: Tensor, std: Tensor) -> Tensor:
        squares = foresight.squared_errors(told, real, std)
        return per_episode(squares, self.parts["test"].episode).sqrt()

    def reward(self) -> dict[str, Tensor]:
        """Returns errors of the reward, (E, H) for k = 1 ... H: `imagined`, `persistence`, `mean`.

        In deviations of the reward; empty where it does not vary.
        """
        part, fit = self.parts["test"], self.parts["fit"].windows["reward"]
        std, paid = fit.double().std(correction=0), future(part.windows["reward"], self.context)
        if not std > 0:
            return {}
        tries = {
            "imagined": self.found["test"].reward,
            "persistence": paid[:1].expand(paid[1:].shape),
            "mean": fit.double().mean().expand(paid[1:].shape),
        }
        return {
            k: self._curve(v[..., None], paid[1:, :, None], std[None]) for k, v in tries.items()
        }

    def ends(self) -> dict:
        """Returns what was told of ends at imagined steps, k = 1 ... H; empty where none comes.

        P(terminal), by episode: `at` steps that end one (A, 1), A of the E episodes, and
        `elsewhere` (E, 1). `error` (E, 1): mean squares of what it misses by (Brier's score),
        beside those of telling `rate`, as often as steps to be fitted end. `reliability`: what
        came of what was told, over all steps.
        """
        part, k = self.parts["test"], self.context
        came = future(part.windows["terminal"], k)[1:]
        if not came.any():
            return {}
        told = 1 - self.found["test"].alive.double()
        rate = future(self.parts["fit"].windows["terminal"], k)[1:].double().mean()
        squares = {
            "error": (told - came.double()).square(),
            "rate": (rate - came.double()).square(),
        }
        mean = {name: self._mean(x, torch.ones_like(came)) for name, x in squares.items()}
        return {
            "at": self._mean(told, came), "elsewhere": self._mean(told, ~came), **mean,
            "reliability": foresight.reliability(told.flatten(), came.flatten()),
        }  # fmt: skip

    def _mean(self, x: Tensor, among: Tensor) -> Tensor:
        """Returns the means (A, 1) of x (H, b) where `among`, of the episodes that have such."""
        sums, counts = (
            per_episode(v.double(), self.parts["test"].episode).sum(1) for v in (x * among, among)
        )
        return (sums[counts > 0] / counts[counts > 0])[:, None]

    def belief(self) -> dict:
        """Returns how imagined beliefs keep to observed ones.

        `imagined` and `held` (the last observed one): errors in deviations of a belief, the square
        root of two where unrelated. `order` and `pace`: as `foresight` says. `dimensions`: how
        many are in use, of `size`.
        """
        seen, episode = self.seen["test"], self.parts["test"].episode
        std = foresight.deviations(self.seen["fit"].flatten(0, 1), pooled=True)
        return {
            "imagined": self._curve(self.dreamt, seen, std),
            "held": self._curve(seen[:1].expand(seen.shape), seen, std),
            "order": per_episode(foresight.order(self.dreamt, seen), episode),
            "pace": foresight.pace(self.dreamt, seen, episode),
            "dimensions": foresight.dimensions(self.seen["fit"]),
            "size": seen.shape[-1],
        }

    def retrieval(self) -> dict:
        """Returns `mrr` and `recall@5` of the true future belief among all windows' at that k.

        By what was imagined, by the last observed belief (`held`), and by chance.
        """
        seen, episode = self.seen["test"], self.parts["test"].episode
        by = {"imagined": self.dreamt, "held": seen[:1].expand(seen.shape)}
        found = {k: foresight.retrieval(query, seen) for k, query in by.items()}
        lucky = foresight.lucky(len(episode))
        return {
            m: {k: per_episode(found[k][m], episode) for k in by} | {"chance": lucky[m]}
            for m in lucky
        } | {"pool": len(episode)}

    def probes(self) -> dict[str, dict[str, list[Reading]]]:
        """Returns linear probes of ground truth by label, a Reading for each k = 0 ... H.

        Of the belief that saw the step (`observed`), of the one imagined (`imagined`), and of the
        last observed one, as if nothing had changed (`held`); all by the same probe, fitted on
        observed beliefs. `recorded`: by one that was fitted on the vectors of the step and the
        action that led to it. What it reads as well, no model had to know.
        """
        truths = {p: foresight.truth(self.parts[p].windows, self.context) for p in PARTS}
        reader = Probes(*(self._pairs(p, truths[p]) for p in PARTS[:2]))
        seen = self.seen["test"]
        ways = {
            "observed": (reader, seen),
            "imagined": (reader, self.dreamt),
            "held": (reader, seen[:1].expand(seen.shape)),
        }
        x = {p: self._recorded(p) for p in PARTS}
        rows = ((x[p].flatten(0, 1), self._pairs(p, truths[p])[1]) for p in PARTS[:2])
        ways["recorded"] = (Probes(*rows), x["test"])
        found: dict[str, dict] = {name: {} for name in reader.targets}
        for way, (probes, xs) in ways.items():
            for k, x in enumerate(xs):
                ys = {name: v[k] for name, v in truths["test"].items()}
                judged = probes.judge(x, ys, self.parts["test"].episode)
                for name, reading in judged.items():
                    found[name].setdefault(way, []).append(reading)
        return found
