"""Promises: what every world model keeps, ours or a third party's, as functions that check one.

Each takes `build`, which returns the same fresh, small model at every call, on the CPU, and raises
AssertionError where a promise is broken. Data are drawn to fit the model's own contract. A model
that learns nothing (window 0) keeps the promises of learning by having none to keep.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .contract import ContractError, Spec
from .model import Belief, WorldModel

Build = Callable[[], WorldModel]
UPDATES = 16  # of a loss that has to fall
_CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def speaks_as_its_contract_says(build: Build) -> None:
    """Shapes, dtypes, devices and ranges of all that it tells are those of its contract."""
    model, n = build(), 3
    contract, rng = model.io_contract(), generator()
    belief = model.start(n)
    _fits(model, belief, contract.belief, n)
    for i in range(2):
        belief = model.observe(belief, actions(model, n), steps(model, n, i), rng)
        _fits(model, belief, contract.belief, n)
    proposed = model.propose(belief, rng)
    if proposed is not None:
        _fits(model, {"action": proposed}, {"action": contract.action}, n)
        assert proposed.abs().max() <= 1, "propose leaves [-1, 1]"
    _fits(model, {"value": model.value(belief, rng)}, {"value": Spec(())}, n)
    belief, reward, alive = model.imagine(belief, actions(model, n), rng)
    _fits(model, belief, {k: contract.belief.get(k) for k in belief}, n)
    told = {"reward": reward, "alive": alive} | model.decode(belief)
    _fits(model, told, contract.prediction, n)
    assert 0 <= alive.min() and alive.max() <= 1, "alive is no probability"
    assert build().io_contract().fingerprint == contract.fingerprint


def follows_each_row_alone(build: Build) -> None:
    """A row's belief depends neither on its neighbours nor on how many there are."""
    model, n = build(), 4
    belief, other = model.start(n), model.start(n)
    ours, one, theirs = generator(1), model.start(1), generator(1)
    for i in range(3):
        step, action = steps(model, n, i), actions(model, n, i)
        changed, moved = steps(model, n, 10 + i), actions(model, n, 10 + i)
        changed = {k: torch.cat([step[k][:1], v[1:]]) for k, v in changed.items()}
        moved = torch.cat([action[:1], moved[1:]])
        belief = model.observe(belief, action, step, ours)
        other = model.observe(other, moved, changed, theirs)
        _same(_rows(belief, 0, 1), _rows(other, 0, 1), "a neighbour changed")
    step, action = steps(model, n, 5), actions(model, n, 5)
    with torch.no_grad():
        several = model.observe(model.start(n), action, step, None)
        one = model.observe(one, action[:1], _rows(step, 0, 1), None)
        _same(one, _rows(several, 0, 1), "it was observed alone")
        several, reward, _ = model.imagine(several, action, None)
        one, paid, _ = model.imagine(one, action[:1], None)
    _same(one | {"reward": paid}, _rows(several | {"reward": reward}, 0, 1), "it was alone")


def begins_anew_at_first(build: Build) -> None:
    """At `first` neither the belief nor the action before counts."""
    model, n = build(), 4
    belief = model.start(n)
    for i in range(2):
        belief = model.observe(belief, actions(model, n, i), steps(model, n, i), generator(i))
    step = steps(model, n, 3) | {"first": torch.ones(n, dtype=torch.bool)}
    after = model.observe(belief, actions(model, n, 3), step, generator(3))
    anew = model.observe(model.start(n), torch.zeros(n, model.nu), step, generator(3))
    _same(after, anew, "it remembers what was before `first`")


def acts_without_a_trace(build: Build) -> None:
    """Acting changes no tensor that it was given and nothing of the model, and asks no gradient.

    A differentiable model lets gradients through from what it imagines to the action.
    """
    model, n, rng = build(), 3, generator()
    before = model.checkpoint() if model.window else {}
    step, action, start = steps(model, n), actions(model, n), model.start(n)
    given = _Unchanged(step | {"action": action} | {f"belief/{k}": v for k, v in start.items()})
    belief = model.observe(start, action, step, rng)
    given.check("observe")
    given = _Unchanged({"action": action} | {f"belief/{k}": v for k, v in belief.items()})
    told = belief | model.decode(belief) | {"action": model.propose(belief, rng)}
    model.value(belief, rng)
    assert not [k for k, v in told.items() if v is not None and v.requires_grad], "a gradient leaks"
    with torch.no_grad():
        model.imagine(belief, action, rng)
    given.check("propose, decode, value or imagine")
    if model.differentiable:
        action.requires_grad_()
        then, reward, _ = model.imagine(belief, action, rng)
        worth = reward.sum() + sum(v.sum() for v in then.values() if v.requires_grad)
        (slope,) = torch.autograd.grad(worth, action)
        assert slope.isfinite().all(), "a gradient is no number"
    assert not [p for p in model.parameters() if p.grad is not None], "a gradient was left behind"
    if model.window:
        _equal(model.checkpoint(), before, "acting changed the model")


def learns_a_batch(build: Build) -> None:
    """`total_loss` falls on a constant batch; metrics are 0-d numbers; the batch stays as it is."""
    model = build()
    if not model.window:
        return
    batch = windows(model)
    given, losses = _Unchanged(batch), []
    for _ in range(UPDATES):
        metrics = model.update(batch)
        bad = [k for k, v in metrics.items() if v.ndim or v.requires_grad or not v.isfinite()]
        assert not bad, f"metrics {bad} are not 0-d, not finite or ask for a gradient"
        losses.append(float(metrics["total_loss"]))
    given.check("update")
    early, late = sum(losses[:4]), sum(losses[-4:])
    assert late < early, f"total_loss went from {early / 4} to {late / 4}"
    assert not [p for p in model.parameters() if p.grad is not None], "a gradient was left behind"


def draws_from_its_own_stream(build: Build) -> None:
    """An update depends on the model and the batch alone, and on no global source of chance."""
    one, two = build(), build()
    if not one.window:
        return
    before = torch.get_rng_state()
    first, _ = one.update(windows(one)), torch.rand(7)
    moved = torch.get_rng_state()
    second = two.update(windows(two))
    assert torch.equal(torch.get_rng_state(), moved) and not torch.equal(before, moved)
    _equal(first, second, "the same update had other metrics")
    _equal(one.checkpoint(), two.checkpoint(), "the same update led elsewhere")


def goes_on_from_a_checkpoint(build: Build) -> None:
    """What is restored predicts and learns as the one that was saved, bit for bit."""
    one, two = build(), build()
    if not one.window:
        return
    for i in range(3):
        one.update(windows(one, i))
    saved = one.checkpoint()
    bad = [k for k, v in saved.items() if not v.is_contiguous() or v.device.type != "cpu"]
    assert not bad, f"{bad} of a checkpoint are not contiguous tensors on the CPU"
    two.update(windows(two, 7))
    two.restore(saved)
    _equal(imagined(one), imagined(two), "a restored model imagines something else")
    for i in range(2):
        _equal(one.update(windows(one, i)), two.update(windows(two, i)), "it learns otherwise")
    _equal(one.checkpoint(), two.checkpoint(), "it learns otherwise")
    moved = [k for k, v in one.checkpoint().items() if not torch.equal(v, saved[k])]
    assert moved, "a checkpoint is not a copy, or an update changes nothing"


def refuses_other_checkpoints(build: Build) -> None:
    """A tensor that is missing, unknown or of another shape is named, and nothing is taken."""
    one, two = build(), build()
    if not one.window:
        return
    one.update(windows(one))
    saved, own = one.checkpoint(), two.checkpoint()
    name = next(iter(saved))
    for wrong in (
        {k: v for k, v in saved.items() if k != name},
        saved | {"unheard/of": torch.zeros(1)},
        saved | {name: torch.zeros(*saved[name].shape, 2)},
    ):
        _refused(lambda wrong=wrong: two.restore(wrong), ValueError, "")
    _equal(two.checkpoint(), own, "a refused checkpoint was taken in part")


def refuses_wrong_windows(build: Build) -> None:
    """A key that is missing, misshapen, of another dtype or length is named before any work."""
    model = build()
    if not model.window:
        return
    own, batch = model.checkpoint(), windows(model)
    for key, good in batch.items():
        other = torch.float64 if good.dtype is torch.float32 else torch.float32
        wrong = [good.to(other), good[..., None], good[:-1], good[:, 1:]]
        if good.dtype.is_floating_point:
            wrong.append(torch.full_like(good, torch.nan))
        for x in wrong:
            _refused(lambda x=x, key=key: model.update(batch | {key: x}), ContractError, repr(key))
        rest = {k: v for k, v in batch.items() if k != key}
        _refused(lambda rest=rest: model.update(rest), ContractError, repr(key))
    short = {k: v[:, 1:] for k, v in batch.items()}
    _refused(lambda: model.update(short), ContractError, f"sample t={model.window}")
    _equal(model.checkpoint(), own, "a refused batch was learnt from")


def refuses_wrong_steps(build: Build) -> None:
    """So is a key of a step."""
    model, n = build(), 3
    start, step, action = model.start(n), steps(model, n), actions(model, n)
    for key, good in step.items():
        other = torch.float16 if good.dtype.is_floating_point else torch.float32
        wrong = [step | {key: x} for x in (good.to(other), good[..., None], good[:-1])]
        for odd in [{k: v for k, v in step.items() if k != key}, *wrong]:
            _refused(
                lambda odd=odd: model.observe(start, action, odd, generator()),
                ContractError,
                repr(key),
            )
    for odd in (action.double(), action[:, None]):
        _refused(
            lambda odd=odd: model.observe(start, odd, step, generator()), ContractError, "'action'"
        )


PROMISES = (
    speaks_as_its_contract_says,
    follows_each_row_alone,
    begins_anew_at_first,
    acts_without_a_trace,
    learns_a_batch,
    draws_from_its_own_stream,
    goes_on_from_a_checkpoint,
    refuses_other_checkpoints,
    refuses_wrong_windows,
    refuses_wrong_steps,
)


def generator(seed: int = 0) -> torch.Generator:
    """Returns a source of chance on the CPU."""
    return torch.Generator().manual_seed(seed)


def example(spec: Spec, lead: tuple[int, ...], rng: torch.Generator) -> Tensor:
    """Returns a tensor (*lead, *spec.shape) of values that the spec allows."""
    shape = (*lead, *spec.shape)
    if spec.dtype is torch.bool:
        return torch.zeros(shape, dtype=torch.bool)
    if spec.low is None or spec.high is None:
        return torch.randn(shape, generator=rng).to(spec.dtype)
    if spec.dtype.is_floating_point:
        drawn = torch.rand(shape, generator=rng, dtype=spec.dtype)
        return spec.low + (spec.high - spec.low) * drawn
    ends = int(spec.low), int(spec.high) + 1
    return torch.randint(*ends, shape, generator=rng).to(spec.dtype)


def steps(model: WorldModel, n: int, seed: int = 0) -> dict[str, Tensor]:
    """Returns a step of n rows that the model can observe; it opens no episode."""
    rng = generator(seed)
    return {k: example(s, (n,), rng) for k, s in model.io_contract().step.items()}


def actions(model: WorldModel, n: int, seed: int = 0) -> Tensor:
    """Returns actions (n, nu) within [-1, 1]."""
    return example(model.io_contract().action, (n,), generator(seed + 1000))


def windows(model: WorldModel, seed: int = 0, b: int = 0) -> dict[str, Tensor]:
    """Returns b windows (default: a batch) that the model can learn from; each opens an episode."""
    rng, lead = generator(seed), (b or model.batch_size, model.window)
    batch = {k: example(s, lead, rng) for k, s in model.io_contract().batch.items()}
    batch["first"][:, 0] = True
    return batch


@torch.no_grad()
def imagined(model: WorldModel, n: int = 3) -> dict[str, Tensor]:
    """Returns what the model imagines and decodes after one step that it has seen."""
    belief = model.observe(model.start(n), actions(model, n), steps(model, n), generator())
    belief, reward, alive = model.imagine(belief, actions(model, n, 1), generator())
    said = {f"decoded/{k}": v for k, v in model.decode(belief).items()}
    return belief | {"reward": reward, "alive": alive} | said


class _Unchanged:
    """Remembers tensors, to say later which was changed in place."""

    def __init__(self, tensors: dict[str, Tensor]):
        self._now, self._then = tensors, {k: v.clone() for k, v in tensors.items()}

    def check(self, what: str) -> None:
        odd = [k for k, v in self._now.items() if not torch.equal(v, self._then[k])]
        assert not odd, f"{what} changed {odd} in place"


def _fits(model: WorldModel, found: dict, specs: dict[str, Spec], n: int) -> None:
    assert found.keys() == specs.keys(), f"{sorted(found)} are told, not {sorted(specs)}"
    for key, x in found.items():
        want = (n, *specs[key].shape), specs[key].dtype, model.device
        assert (tuple(x.shape), x.dtype, x.device) == want, f"{key!r} is {x.shape}, {x.dtype}"
        assert not x.dtype.is_floating_point or x.isfinite().all(), f"{key!r} is not finite"


def _rows(belief: Belief, start: int, stop: int) -> Belief:
    return {k: v[start:stop] for k, v in belief.items()}


def _same(one: Belief, two: Belief, why: str) -> None:
    for key, x in one.items():
        close = torch.allclose(x.double(), two[key].double(), **_CLOSE)
        assert close, f"{key!r} of a row is another where {why}"


def _equal(one: dict[str, Tensor], two: dict[str, Tensor], why: str) -> None:
    odd = one.keys() ^ two.keys() or {k for k in one if not torch.equal(one[k], two[k])}
    assert not odd, f"{why}: {sorted(odd)[:3]}"


def _refused(act: Callable, error: type[ValueError], text: str) -> None:
    try:
        act()
    except error as refusal:
        assert text in str(refusal), f"{refusal} does not say {text}"
    else:
        raise AssertionError(f"what is wrong with {text or 'a checkpoint'} was not refused")
