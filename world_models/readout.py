"""Readouts: what can be read off vectors along straight lines; knows no model and no world.

A probe shows what is there to be read linearly, not that the model makes use of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

STRENGTHS = tuple(10.0**e for e in range(-6, 4))  # of the penalty, on standardised vectors
CONSTANT = 1e-4  # of the greatest deviation in a vector: what varies less counts as constant
MOST_CLASSES = 20  # an integer with more values is a quantity


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of vectors, each (d,); the deviation of a constant is 0."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, x: Tensor) -> Scale:
        """Returns the scale of vectors (..., d)."""
        x = x.reshape(-1, x.shape[-1]).double()
        std = x.std(0, correction=0)
        return cls(x.mean(0), torch.where(std > CONSTANT * std.amax(), std, 0.0))

    @property
    def live(self) -> Tensor:
        """Which components vary, (d,) bool."""
        return self.std > 0

    def apply(self, x: Tensor) -> Tensor:
        """Returns vectors (..., d) standardised, constants as 0."""
        return torch.where(self.live, (x - self.mean) / self.std.where(self.live, 1.0), 0.0)


class Ridge:
    """All ridge regressions from vectors x (m, d) to y (m, c), one for each strength.

    Minimises the mean squared error plus strength times the squared weights, of standardised x and
    centred y: in closed form, from one eigendecomposition of the smaller Gram matrix.
    """

    def __init__(self, x: Tensor, y: Tensor):
        """Raises ValueError for no vectors."""
        if len(x) == 0:
            raise ValueError("no vectors to fit; record more episodes")
        self.scale, self.mean = Scale.of(x), y.double().mean(0)
        x, y = self.scale.apply(x), y.double() - self.mean
        if x.shape[1] <= len(x):
            self._values, basis = torch.linalg.eigh(x.T @ x / len(x))
            self._left, self._right = basis, basis.T @ (x.T @ y) / len(x)
        else:
            self._values, basis = torch.linalg.eigh(x @ x.T / len(x))
            self._left, self._right = x.T @ basis, basis.T @ y / len(x)

    def predict(self, x: Tensor, strength: float) -> Tensor:
        """Returns what is read off vectors (..., d), (..., c) float64."""
        weight = self._left @ (self._right / (self._values.clamp(min=0) + strength)[:, None])
        return self.scale.apply(x) @ weight + self.mean


class Target(ABC):
    """Something to be read off: how it becomes columns of a regression, and how that is judged."""

    @abstractmethod
    def columns(self, y: Tensor) -> Tensor:
        """Returns values (m, d) as what a regression predicts, (m, c) float64."""

    @abstractmethod
    def settle(self, read: Tensor, y: Tensor) -> None:
        """Learns from what was read (m, c) for y (m, d) how to tell what is meant."""

    @abstractmethod
    def sums(self, read: Tensor, y: Tensor) -> Tensor:
        """Returns what `score` needs of each of m readings (m, c), in sums over readings."""

    @abstractmethod
    def score(self, sums: Tensor) -> float:
        """Returns the score of summed readings; nan where it is not defined."""

    @abstractmethod
    def chance(self, sums: Tensor) -> float:
        """Returns the score of what knows nothing."""


class Quantity(Target):
    """Continuous components, judged by R², against the mean of what was fitted, over all."""

    measure = "R²"

    def __init__(self, y: Tensor):
        self.scale = Scale.of(y)
        self.known = bool(self.scale.live.any())

    def columns(self, y: Tensor) -> Tensor:
        return self.scale.apply(y)

    def restore(self, columns: Tensor) -> Tensor:
        """Returns columns (..., d) in the units of the values."""
        return columns * self.scale.std + self.scale.mean

    def settle(self, read: Tensor, y: Tensor) -> None:
        pass

    def sums(self, read: Tensor, y: Tensor) -> Tensor:
        truth = self.scale.apply(y)
        return torch.stack([(read - truth).square().sum(1), truth.square().sum(1)], 1)

    def score(self, sums: Tensor) -> float:
        return float(1 - sums[0] / sums[1]) if sums[1] > 0 else float("nan")

    def chance(self, sums: Tensor) -> float:
        return 0.0


class Classes(Target):
    """Components of a few values each, judged by balanced accuracy, the mean over components.

    What is read goes to the class whose mean reading is nearest, so rare classes count like
    frequent ones. Values that were not fitted are not judged.
    """

    measure = "balanced accuracy"

    def __init__(self, y: Tensor):
        found = [torch.unique(y[:, j]) for j in range(y.shape[1])]
        self.components = [j for j, values in enumerate(found) if len(values) > 1]
        self.values = [found[j] for j in self.components]
        self.known = bool(self.components)
        self._centres: list[Tensor] = []

    def _codes(self, y: Tensor) -> list[Tensor]:
        """Returns one-hot codes (m, classes) of each component; zeros for an unknown value."""
        pairs = zip(self.components, self.values, strict=True)
        return [(y[:, j, None] == values).double() for j, values in pairs]

    def columns(self, y: Tensor) -> Tensor:
        return torch.cat(self._codes(y), 1)

    def _parts(self, read: Tensor) -> tuple[Tensor, ...]:
        return read.split([len(values) for values in self.values], 1)

    def settle(self, read: Tensor, y: Tensor) -> None:
        pairs = zip(self._parts(read), self._codes(y), strict=True)
        self._centres = [code.T @ part / code.sum(0)[:, None] for part, code in pairs]

    def sums(self, read: Tensor, y: Tensor) -> Tensor:
        """Returns hits and counts of each class of each component, (m, components, classes, 2)."""
        wide = max(len(values) for values in self.values)
        out = torch.zeros(len(y), len(self.values), wide, 2, dtype=torch.float64)
        parts = zip(self._parts(read), self._codes(y), self._centres, strict=True)
        for j, (part, code, centre) in enumerate(parts):
            nearest = torch.cdist(part, centre).argmin(1)
            hit = torch.nn.functional.one_hot(nearest, len(centre)) * code
            out[:, j, : len(centre)] = torch.stack([hit, code], -1)
        return out

    def score(self, sums: Tensor) -> float:
        hits, counts = sums.unbind(-1)
        there = counts > 0.5
        recall = torch.where(there, hits / counts.clamp(min=1), 0.0).sum(1) / there.sum(1)
        return float(recall[there.sum(1) > 1].mean())

    def chance(self, sums: Tensor) -> float:
        there = (sums[..., 1] > 0.5).sum(1)
        return float((1 / there[there > 1]).mean())


def target_of(y: Tensor) -> Target:
    """Returns how values (m, d) are read: floats as quantities, flags and few integers as kinds."""
    if y.dtype.is_floating_point or len(torch.unique(y)) > MOST_CLASSES:
        return Quantity(y)
    return Classes(y)


@dataclass(frozen=True)
class Reading:
    """A score over E episodes, what chance gives, and its jackknife pseudo-values (E,).

    Their mean is the score but for its bias, their spread that of episodes. Source: Tukey 1958.
    """

    score: float
    chance: float
    pseudo: Tensor
    measure: str


class Probes:
    """Linear readouts of one kind of vector: for each target the strength that validates best.

    fit, validate: vectors (m, d) and {name: values (m, d')}. Targets that do not vary are left out.
    """

    def __init__(
        self, fit: tuple[Tensor, dict[str, Tensor]], validate: tuple[Tensor, dict[str, Tensor]]
    ):
        x, ys = fit
        made = {name: target_of(y) for name, y in ys.items()}
        self.targets = {name: target for name, target in made.items() if target.known}
        columns = {name: target.columns(ys[name]) for name, target in self.targets.items()}
        self._widths = {name: c.shape[1] for name, c in columns.items()}
        if not columns:
            return
        self._ridge = Ridge(x, torch.cat(list(columns.values()), 1))
        best = dict.fromkeys(self.targets, float("-inf"))
        self.strengths = dict.fromkeys(self.targets, max(STRENGTHS))
        for strength in reversed(STRENGTHS):  # of equals the strongest
            told, tried = self._read(x, strength), self._read(validate[0], strength)
            for name, target in self.targets.items():
                target.settle(told[name], ys[name])
                score = target.score(target.sums(tried[name], validate[1][name]).sum(0))
                if score > best[name]:
                    best[name], self.strengths[name] = score, strength
        for name, read in self._chosen(x).items():
            self.targets[name].settle(read, ys[name])

    def _read(self, x: Tensor, strength: float) -> dict[str, Tensor]:
        parts = self._ridge.predict(x, strength).split(list(self._widths.values()), -1)
        return dict(zip(self._widths, parts, strict=True))

    def _chosen(self, x: Tensor) -> dict[str, Tensor]:
        """Returns the columns that are read off x, each target's at its own strength."""
        read = {s: self._read(x, s) for s in set(self.strengths.values())} if self.targets else {}
        return {name: read[self.strengths[name]][name] for name in self.targets}

    def values(self, x: Tensor) -> dict[str, Tensor]:
        """Returns the quantities as read off vectors (..., d), in their units, (..., d')."""
        quantities = {k: t for k, t in self.targets.items() if isinstance(t, Quantity)}
        return {k: quantities[k].restore(c) for k, c in self._chosen(x).items() if k in quantities}

    def judge(self, x: Tensor, ys: dict[str, Tensor], episode: Tensor) -> dict[str, Reading]:
        """Returns the reading of each target off vectors x (m, d) that were not fitted.

        ys: the truth, {name: (m, d')}. episode: the one each vector is of, (m,) int64 below E.
        """
        found, count = {}, int(episode.max()) + 1
        for name, read in self._chosen(x).items():
            target = self.targets[name]
            rows = target.sums(read, ys[name])
            sums = torch.zeros(count, *rows.shape[1:], dtype=torch.float64)
            sums.index_add_(0, episode, rows)
            whole = target.score(sums.sum(0))
            without = [target.score(sums.sum(0) - one) for one in sums]
            pseudo = count * whole - (count - 1) * torch.tensor(without, dtype=torch.float64)
            found[name] = Reading(whole, target.chance(sums.sum(0)), pseudo, target.measure)
        return found
