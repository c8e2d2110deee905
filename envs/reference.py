"""Reference: which thing words mean in a scene, words that mean just one, and whether they hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .language import ENDS, NAMES, SHAPES, Description, Instruction
from .relations import BINARY, HOLDS, MARGIN, Scene

KINDS = ("plain", "colour", "shape", "without", "rank", "relation")
SIMPLE = KINDS[:3]  # of landmarks
TOUCH, RAISED = 0.04, 0.05  # m: the tool is at a thing; a thing's lowest point is off the table
_ALONG = {"left": (1, 1), "right": (1, -1), "front": (0, -1), "back": (0, 1)}  # axis, sign
_BIGGER = np.log(1.2)  # what is less than this much bigger is not said to be


def resolve(said: Description, scene: Scene) -> np.ndarray:
    """Returns `(n, k)` bool: the things of each row that the description fits.

    "The" landmark must be one thing of the row, else nothing fits; a rank fits nothing that is
    less than `MARGIN` from its neighbour in the row of things.
    """
    fits = np.ones(scene.shape.shape, bool)
    if said.shape:
        fits &= scene.shape == SHAPES.index(said.shape)
    if said.colour:
        fits &= scene.colour == NAMES.index(said.colour)
    if said.without:
        fits &= scene.colour != NAMES.index(said.without)
    if said.relation:
        fits &= _related(scene, said.relation, [resolve(m, scene) for m in said.landmarks])
    return _ranked(fits, scene, *said.rank) if said.rank else fits


def _related(scene: Scene, relation: str, marks: list[np.ndarray]) -> np.ndarray:
    """Returns (n, k): which things are in the relation to the one thing of each mask (n, k)."""
    things, known, same = [], np.ones(len(scene.shape), bool), np.zeros(scene.shape.shape, bool)
    for mask in marks:
        at = np.arange(len(mask)), mask.argmax(1)
        things.append((scene.place[at][:, None], scene.half[at][:, None]))
        known &= mask.sum(1) == 1
        same |= mask
    return HOLDS[relation]((scene.place, scene.half), *things) & known[:, None] & ~same


def _ranked(fits: np.ndarray, scene: Scene, end: str, count: int) -> np.ndarray:
    if end in _ALONG:
        axis, sign = _ALONG[end]
        key, margin = sign * scene.place[..., axis], MARGIN
    else:
        key = np.log(np.maximum(scene.half, 1e-9)).mean(-1) * (1 if end == "big" else -1)
        margin = _BIGGER
    ahead = key[:, None] - key[:, :, None]  # [i, a, b]: how far b is ahead of a
    others = fits[:, None] & ~np.eye(fits.shape[1], dtype=bool)
    doubtful = (others & (np.abs(ahead) < margin)).any(2)
    return fits & ~doubtful & ((others & (ahead >= margin)).sum(2) == count - 1)


def means(said: Description, scene: Scene, i: int) -> int | None:
    """Returns which thing of row i the description means, or None unless it is just one."""
    fits = resolve(said, scene.row(i))[0]
    return int(fits.argmax()) if fits.sum() == 1 else None


def describe(
    scene: Scene, i: int, which: int, rng: np.random.Generator, kinds: Sequence[str] = KINDS
) -> Description:
    """Returns a description that in row i means the thing `which` and nothing else.

    Its kind is drawn from those of `kinds` that can say it: "plain" colour and shape, "colour",
    "shape", "without" (a colour it has not), "rank" in a row, "relation" to others. Raises
    ValueError if none can.
    """
    row = scene.row(i)
    for k in rng.permutation(len(kinds)):
        options = list(_options(row, which, kinds[k]))
        for o in rng.permutation(len(options)):
            if means(options[o], row, 0) == which:
                return options[o]
    name = f"{NAMES[row.colour[0, which]]} {SHAPES[row.shape[0, which]]}"
    raise ValueError(
        f"no words of the kinds {', '.join(kinds)} tell the {name} (thing {which}) of row {i} "
        "from the others; place the things farther apart or allow more kinds"
    )


def _options(row: Scene, which: int, kind: str) -> Iterator[Description]:
    """Yields descriptions of a kind that are true of the thing; not all mean it alone."""
    looks = [(SHAPES[s], NAMES[c]) for s, c in zip(row.shape[0], row.colour[0], strict=True)]
    shape, colour = looks[which]
    if kind == "plain":
        yield Description(shape, colour)
    elif kind == "colour":
        yield Description(colour=colour)
    elif kind == "shape":
        yield Description(shape)
    elif kind == "without":
        for other in sorted({c for s, c in looks if s == shape and c != colour}):
            yield Description(shape, without=other)
    elif kind == "rank":
        for said in (Description(shape), Description(colour=colour), Description()):
            count = int(resolve(said, row)[0].sum())
            for end in ENDS if count > 1 else ():
                for place in range(1, min(count, 5) if end in _ALONG else 2):
                    yield Description(said.shape, said.colour, rank=(end, place))
    elif kind == "relation":
        yield from _places(row, which, shape)


def _places(row: Scene, which: int, shape: str) -> Iterator[Description]:
    marks = _landmarks(row)
    others = [k for k in marks if k != which]
    for relation in HOLDS:
        for k in others:
            pairs = [j for j in others if j > k] if relation == "between" else [None]
            for j in pairs:
                near = (marks[k],) if j is None else (marks[k], marks[j])
                yield Description(shape, relation=relation, landmarks=near)


def _landmarks(row: Scene) -> dict[int, Description]:
    """Returns colour and shape of each thing that these tell from the others."""
    found = {}
    for k in range(row.shape.shape[1]):
        said = Description(SHAPES[row.shape[0, k]], NAMES[row.colour[0, k]])
        if means(said, row, 0) == k:
            found[k] = said
    return found


def holds(said: Instruction, scene: Scene) -> np.ndarray:
    """Returns `(n,)` bool: what is asked for is so; False where the words mean not one thing.

    `reach`: the tool is within 4 cm of the thing's centre; `lift`: its lowest point is 5 cm above
    z = 0; else the thing is in the relation, or if negated is not.
    """
    thing = resolve(said.thing, scene)
    known, at = thing.sum(1) == 1, (np.arange(len(thing)), thing.argmax(1))
    if said.verb == "reach":
        return known & (((scene.place[at] - scene.tool) ** 2).sum(1) < TOUCH**2)
    if said.verb == "lift":
        return known & (scene.place[at][:, 2] - scene.half[at][:, 2] > RAISED)
    marks = [resolve(mark, scene) for mark in said.landmarks]
    for mark in marks:
        known &= mark.sum(1) == 1
    return known & (_related(scene, said.relation, marks)[at] != said.negated)


def others(said: Instruction, scene: Scene, i: int) -> list[Instruction]:
    """Returns what else can be asked for in row i by the same verb: other things, other places.

    All are valid (their words mean one thing each) and none asks for what `said` does.
    """
    row = scene.row(i)
    names = _landmarks(row)
    verbs = [None] if said.relation is None else ["on"] if said.verb != "arrange" else BINARY
    asked = _asked(said, row)
    found = []
    for k, thing in names.items():
        for relation in verbs:
            for j in [None] if relation is None else [j for j in names if j != k]:
                for negated in (False, True) if said.verb == "arrange" else (False,):
                    if said.verb == "arrange" and relation == "on" and not negated:
                        continue  # that is `place`
                    marks = () if j is None else (names[j],)
                    other = Instruction(said.verb, thing, relation, marks, negated)
                    found += [other] * (_asked(other, row) != asked)
    return found


def _asked(said: Instruction, row: Scene) -> tuple:
    marks = [means(mark, row, 0) for mark in said.landmarks]
    return means(said.thing, row, 0), said.relation, sorted(marks, key=str), said.negated


def counterfactuals(said: Instruction, scene: Scene, i: int) -> list[Instruction]:
    """Returns what else can be asked for in row i whose truth there, as it stands, is another."""
    row = scene.row(i)
    true = holds(said, row)[0]
    return [other for other in others(said, row, 0) if holds(other, row)[0] != true]
