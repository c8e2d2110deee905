"""Splits: which colours, pairs of colour and shape, and phrases training never meets.

Held out are the colours `HELD_COLOURS`; of the other four, one pair with each shape (those whose
indices add up to a multiple of four, so each shape and each colour is still seen); and every
third phrase of a verb and word for a thing. A test split is new in one of the three alone, and
only in what the words name; what lies about besides is of the training split.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .language import NAMES, NOUNS, SHAPES, VERBS

SPLITS = ("all", "train", "test_compositions", "test_colours", "test_phrasings")
HELD_COLOURS = ("purple", "orange")
FORMS = 3  # of words for a thing: `Description.text`
_SEEN = tuple(NAMES.index(name) for name in NAMES if name not in HELD_COLOURS)
_HELD = tuple(NAMES.index(name) for name in HELD_COLOURS)


def held_pair(colour: str, shape: str) -> bool:
    """Whether training never meets a thing of this shape in this colour, which it does know."""
    if colour in HELD_COLOURS or shape not in SHAPES:  # furniture has no pairs held out
        return False
    return (NAMES.index(colour) + SHAPES.index(shape)) % 4 == 0


def held_phrase(phrase: int) -> bool:
    """Whether training never meets a verb's phrase, or a word for a thing, with this index."""
    return phrase % 3 == 2


@dataclass(frozen=True)
class Grammar:
    """What a split's episodes draw from; "all" draws from everything, new and known together.

    Raises ValueError for a name that is no split.
    """

    split: str = "all"

    def __post_init__(self):
        if self.split not in SPLITS:
            raise ValueError(f"no split {self.split!r}; there are {', '.join(SPLITS)}")

    def colours(
        self,
        rng: np.random.Generator,
        shapes: Sequence[str],
        named: Sequence[int],
        drawn: Sequence[int] | None = None,
        distinct: bool = False,
    ) -> list[int]:
        """Returns a colour index for each thing of `shapes`; `named` are those the words mean.

        Things of one shape differ in colour, and all do if distinct. drawn: what the split "all"
        takes instead of a draw of its own. Raises ValueError if there are too few colours.
        """
        if self.split == "all" and drawn is not None:
            return [int(c) for c in drawn]
        for _ in range(200):
            new = int(rng.choice(named)) if self.split in SPLITS[2:4] else -1
            picked: list[int] = []
            for k, shape in enumerate(shapes):
                taken = {c for c, s in zip(picked, shapes, strict=False) if distinct or s == shape}
                free = [c for c in self._palette(shape, k == new) if c not in taken]
                if not free:
                    break
                picked.append(int(rng.choice(free)))
            if len(picked) == len(shapes):
                return picked
        raise ValueError(
            f"the split {self.split!r} has too few colours to tell {', '.join(shapes)} apart"
        )

    def _palette(self, shape: str, new: bool) -> list[int]:
        if self.split == "all":
            return list(range(len(NAMES)))
        if new and self.split == "test_colours":
            return list(_HELD)
        return [c for c in _SEEN if held_pair(NAMES[c], shape) == new]

    def phrase(self, u: float, count: int) -> int:
        """Returns which of a verb's `count` phrases u in [0, 1) chooses."""
        return self._choose(u, count, self.split == "test_phrasings")

    def form(self, u: float) -> int:
        """Returns which words for things u in [0, 1) chooses, a `form` of `Description.text`."""
        return self._choose(u, FORMS, False)

    def _choose(self, u: float, count: int, new: bool) -> int:
        allowed = [k for k in range(count) if self.split == "all" or held_phrase(k) == new]
        if not allowed:
            raise ValueError(f"none of {count} phrases is held out; give a verb at least 3")
        return allowed[int(len(allowed) * u)]


def split_of(
    things: Sequence[tuple[str, str]], named: Sequence[int], phrase: int = 0, form: int = 0
) -> str:
    """Returns the split that an episode with things (colour, shape) and these words belongs to.

    "" means that it is in none: new in more than one way, or in what the words do not name.
    """
    new = set()
    for k, (colour, shape) in enumerate(things):
        kind = "test_colours" if colour in HELD_COLOURS else ""
        kind = kind or ("test_compositions" if held_pair(colour, shape) else "")
        if kind and k not in named:
            return ""
        new |= {kind} - {""}
    if held_phrase(phrase) or held_phrase(form):
        new.add("test_phrasings")
    return new.pop() if len(new) == 1 else "" if new else "train"


_SAID = re.compile(rf"({'|'.join(NAMES)}) ({'|'.join(w for ws in NOUNS.values() for w in ws)})\b")
_OF = {word: shape for shape, words in NOUNS.items() for word in words}


def split_of_words(text: str) -> str:
    """Returns the split that the words of an instruction alone belong to, "" if to none."""
    said = [(colour, _OF[noun]) for colour, noun in _SAID.findall(text)]
    words = set(re.findall(r"\w+", text))
    new = {"test_colours"} if words & set(HELD_COLOURS) else set()
    new |= {"test_compositions" for colour, shape in said if held_pair(colour, shape)}
    if _phrase_of(text) or any(words & set(names[2::3]) for names in NOUNS.values()):
        new.add("test_phrasings")
    return new.pop() if len(new) == 1 else "" if new else "train"


def _phrase_of(text: str) -> bool:
    """Whether the text is of a held-out phrase and of no other."""
    fits = {
        held_phrase(k)
        for phrases in VERBS.values()
        for k, phrase in enumerate(phrases)
        if re.fullmatch(".+".join(re.escape(part) for part in phrase.split("{}")), text)
    }
    return fits == {True}
