"""Suites: how much a verdict on a world model looks at, and what a probe must have found."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .gates import Finding

NEARER = 0.5  # of the imagined steps at least, beliefs must be surely nearer than held ones
FILLED = 2.0  # dimensions of a belief in use; one that has collapsed fills one or none


@dataclass(frozen=True)
class Suite:
    """How many `seeds` train where none are told, whether `worlds` are acted in, and `probed`."""

    seeds: int
    worlds: bool
    probed: bool


SUITES = {
    "quick": Suite(1, False, False),
    "standard": Suite(3, True, False),
    "comprehensive": Suite(5, True, True),
}


def aspects(found: dict) -> list[Finding]:
    """Returns as gates what the verb `probe` found of a run: `found` as in its probe.json.

    Intervals are of 95 % over episodes. How well rewards are foreseen is a gate of every suite.
    """
    return [_reconstruction(found["errors"]), *_imagination(found["belief"]), _filled(found)]


def _reconstruction(errors: dict) -> Finding:
    """Holds each observation, read off beliefs that saw it, to be nearer than its mean is."""
    found = [(key, _over_steps(curves["observed"])) for key, curves in errors.items()]
    found.sort(key=lambda of: (math.isnan(of[1]["high"]), of[1]["high"]))
    key, worst = found[-1] if found else ("nothing", dict.fromkeys(("mean", "high"), math.nan))
    reason = f"error of {key} read off beliefs that saw it, in deviations: 1 is its mean's"
    return Finding("reconstruction", worst["high"] < 1, worst["mean"], 1, reason)


def _imagination(belief: dict) -> list[Finding]:
    """Holds imagined beliefs to be nearer to the true ones than if all stayed, and in order."""
    ahead = len(belief["imagined"]["mean"]) - 1
    share = len([k for k in belief["better"] if k]) / ahead
    reason = f"share of {ahead} steps ahead at which imagining surely errs less than standing still"
    nearer = Finding("consistency", share >= NEARER, share, NEARER, reason)
    order = _over_steps({k: v[1:] for k, v in belief["order"].items()})
    reason = "how surely imagined beliefs lie at their own time; 0.5 is chance"
    return [nearer, Finding("coherence", order["low"] > 0.5, order["mean"], 0.5, reason)]


def _over_steps(curve: dict) -> dict:
    """Returns mean, low and high of a curve over its steps; nan, which passes nothing, if none."""
    return {k: _mean([v for v in values if v is not None]) for k, values in curve.items()}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _filled(found: dict) -> Finding:
    belief = found["belief"]
    reason = f"dimensions in use, of a belief's {belief['size']}"
    used = belief["dimensions"]
    return Finding("utilisation", used >= FILLED, used, FILLED, reason)
