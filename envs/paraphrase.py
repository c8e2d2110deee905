"""Paraphrase: other words that ask for the same, further from the plain ones level by level."""

from __future__ import annotations

import re

import numpy as np

from .language import LENGTH, NOUNS, VERBS, readings

FRAMES = ("please {}", "could you {}?", "now {}", "robot, {}", "{}, please", "I want you to {}")
ASIDES = (
    "take your time and {}", "mind the edge of the table and {}", "when you are ready, {}",
    "it is late, but {}", "never mind the rest, {}", "quietly {}",
)  # fmt: skip
_NOUN = re.compile(r"\b(" + "|".join(word for words in NOUNS.values() for word in words) + r")\b")
_OF = {word: words for words in NOUNS.values() for word in words}


def paraphrase(text: str, level: int, rng: np.random.Generator) -> str:
    """Returns the instruction in other words: 0 as it is, 1 framed politely, 2 by other nouns
    too, 3 and another phrase of the verb, 4 and an aside, 5 and with two letters exchanged.

    What would be longer than an instruction may be is said at the next lower level. Text outside
    the grammar keeps its verb. Equal draws are made at every level.
    """
    if not text:
        return text
    draws = rng.integers(0, 2**31, 6).tolist()
    for lower in range(level, -1, -1):
        told = _said(text, lower, draws)
        if len(told.encode()) <= LENGTH:
            return told
    return text


def _said(text: str, level: int, draws: list[int]) -> str:
    frame, noun, phrase, aside, place, _ = draws
    if level >= 2:
        meant = readings(text) if level >= 3 else []
        if len(meant) == 1:
            others = [meant[0].text(k) for k in range(len(VERBS[meant[0].verb]))]
            others = [other for other in others if other != text]
            text = others[phrase % len(others)]
        text = _NOUN.sub(lambda m: _OF[m[0]][(1 + noun % 2) % len(_OF[m[0]])], text)
    if level >= 4:
        text = ASIDES[aside % len(ASIDES)].format(text)
    if level >= 1:
        text = FRAMES[frame % len(FRAMES)].format(text)
    return _slip(text, place) if level >= 5 else text


def _slip(text: str, place: int) -> str:
    """Exchanges two letters within a longer word."""
    spots = [m.start() + 1 for m in re.finditer(r"\b[a-z]{4,}\b", text)]
    spots = [k for k in spots if text[k] != text[k + 1]]
    if not spots:
        return text
    k = spots[place % len(spots)]
    return text[:k] + text[k + 1] + text[k] + text[k + 2 :]
