"""Suites: how much a verdict on a world model looks at, and what a probe must have found."""

from __future__ import annotations

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
    """Holds each observation, read off a belief that saw it, to be nearer than its mean is."""
    least, worst = {}, {}
    for key, curves in errors.items():
        known = [v for v in curves["observed"]["high"] if v is not None]
        least[key] = sum(known) / len(known) if known else float("inf")
        worst[key] = sum(curves["observed"]["mean"]) / len(curves["observed"]["mean"])
    key = max(least, key=least.get)
    reason = f"error of {key} read off beliefs that saw it, in deviations: 1 is its mean's"
    return Finding("reconstruction", least[key] < 1, worst[key], 1, reason)


def _imagination(belief: dict) -> list[Finding]:
    """Holds imagined beliefs to be nearer to the true ones than if all stayed, and in order."""
    ahead = len(belief["imagined"]["mean"]) - 1
    share = len([k for k in belief["better"] if k]) / ahead
    reason = f"share of {ahead} steps ahead at which imagining surely errs less than standing still"
    nearer = Finding("consistency", share >= NEARER, share, NEARER, reason)
    lows, means = belief["order"]["low"][1:], belief["order"]["mean"][1:]
    sure = all(low is not None and low > 0.5 for low in lows)
    reason = "how surely imagined beliefs lie at their own time, where least; 0.5 is chance"
    worst = min((m for m in means if m is not None), default=0.0)
    return [nearer, Finding("coherence", sure, worst, 0.5, reason)]


def _filled(found: dict) -> Finding:
    belief = found["belief"]
    reason = f"dimensions in use, of a belief's {belief['size']}"
    used = belief["dimensions"]
    return Finding("utilisation", used >= FILLED, used, FILLED, reason)
