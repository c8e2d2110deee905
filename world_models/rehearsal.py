"""Rehearsal: a model with networks of one's own does all of its work once, before any is learnt.

Whoever builds it is told which place is to blame, not what broke some hours later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .model import WorldModel
from .parts import Make
from .promises import actions, steps, windows

ROWS = 3  # that are acted in, and windows that are learnt from


def rehearse(build: Callable[[Mapping[str, Make]], WorldModel], parts: Mapping[str, Make]) -> None:
    """Holds each of the parts to what the model's own network gives, for the same input.

    build: returns a fresh model with the parts it is given; those are thrown away again. Raises
    ValueError with the place's name where a part is not made, fails, or gives another shape or
    dtype, and with all places' names where the model then acts or learns otherwise than its own.
    """
    model, heard = build({}), {}
    with _listening(model, parts, heard):
        wanted = _shapes(_acted(model))
    model = build({place: _made(place, make) for place, make in parts.items()})
    for place, (given, named, wants) in heard.items():
        with torch.no_grad(), _blaming(f"the part {place} fails"):
            gives = _shape(getattr(model, place)(*given, **named))
        if gives != wants:
            raise ValueError(f"the part {place} gives {gives}, not {wants}, for {ROWS} rows")
    names = ", ".join(parts)
    with _blaming(f"with another {names} the model does not act"):
        found = _shapes(_acted(model))
    for key, wants in wanted.items():
        if found.get(key) != wants:
            raise ValueError(
                f"with another {names} the model's {key} is {found.get(key)}, not {wants}"
            )
    with _blaming(f"with another {names} the model does not learn"):
        model.update(_placed(model, windows(model, b=ROWS)))


def _acted(model: WorldModel) -> dict[str, Tensor]:
    """Returns all that the model tells of rows that it observes, imagines and acts in."""
    rng = torch.Generator(model.device).manual_seed(0)
    step, action = _placed(model, steps(model, ROWS)), actions(model, ROWS).to(model.device)
    with torch.no_grad():
        belief = model.observe(model.start(ROWS), action, step, rng)
        after, reward, alive = model.imagine(belief, action, rng)
        told = {"value": model.value(belief, rng), "action": model.propose(belief, rng)}
        told |= {"reward": reward, "alive": alive}
        told |= {f"decoded {k}": v for k, v in model.decode(belief).items()}
    told |= {f"belief {k}": v for k, v in belief.items()}
    return told | {f"imagined {k}": v for k, v in after.items()}


@contextmanager
def _listening(model: nn.Module, places, heard: dict) -> Iterator[None]:
    """Notes, by place, what its network is first given, and the shape of what that gives.

    A place whose network has other verbs than `forward`, or gives no tensor, stays unheard.
    """

    def note(place: str):
        def hook(_, given, named, gives):
            if isinstance(gives, Tensor):
                heard.setdefault(place, (given, named, _shape(gives)))

        return hook

    own = {place: getattr(model, place, None) for place in places}
    hooks = [
        network.register_forward_hook(note(place), with_kwargs=True)
        for place, network in own.items()
        if network is not None
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _made(place: str, make: Make) -> Make:
    """Returns what makes the part, and says which it is where it cannot."""

    def made(own: nn.Module, rng: torch.Generator):
        with _blaming(f"the part {place} is not made"):
            return make(own, rng)

    return made


@contextmanager
def _blaming(what: str) -> Iterator[None]:
    """Turns whatever a network of somebody's raises into a ValueError of one line."""
    try:
        yield
    except Exception as error:  # foreign code may raise anything; the cause stays attached
        reason = (str(error).splitlines() or [""])[0]
        raise ValueError(f"{what}: {type(error).__name__}: {reason}") from error


def _placed(model: WorldModel, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.to(model.device) for k, v in tensors.items()}


def _shapes(tensors: Mapping[str, Tensor | None]) -> dict[str, str]:
    return {k: _shape(v) for k, v in tensors.items()}


def _shape(x: object) -> str:
    """Returns a tensor's dtype and shape in words, a type's name for anything else."""
    if isinstance(x, Tensor):
        return f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}"
    return type(x).__name__
