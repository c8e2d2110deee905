"""Language: the vocabulary, what can be said of things and asked for, and its text; knows no scene.

Left, right, front and back are the robot's own: it stands at the origin and looks along +x, so
left is +y, the front is what is near to it and the back is what is far (`relations` decides).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LENGTH = 128  # bytes of an encoded instruction
COLOURS = {
    "red": (0.85, 0.15, 0.13, 1.0),
    "green": (0.15, 0.65, 0.25, 1.0),
    "blue": (0.13, 0.33, 0.85, 1.0),
    "yellow": (0.95, 0.80, 0.15, 1.0),
    "purple": (0.55, 0.22, 0.70, 1.0),
    "orange": (0.95, 0.50, 0.12, 1.0),
}
NAMES = tuple(COLOURS)
RGBA = np.array(list(COLOURS.values()))
NOUNS = {  # what a thing is called, and its other names; their order belongs to the splits
    "ball": ("ball", "sphere", "globe"),
    "cube": ("cube", "block", "brick"),
    "cylinder": ("cylinder", "can", "tin"),
    "disc": ("disc", "plate", "mat"),
    "bowl": ("bowl", "dish", "basin"),
    "bin": ("bin", "crate", "tub"),
    "drawer": ("drawer",),
    "button": ("button", "switch"),
    "cup": ("cup", "mug", "beaker"),
    "peg": ("peg", "pin", "rod"),
    "zone": ("zone",),
    "socket": ("socket",),
    "door": ("door",),
    "dial": ("dial",),
    "bar": ("bar",),
    "outline": ("outline",),
    "goal": ("goal",),
    "post": ("post",),
    "hopper": ("hopper",),
    "rover": ("rover",),
}
SHAPES = tuple(NOUNS)
RELATIONS = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "in front of": ("in front of", "before"),
    "behind": ("behind", "beyond"),
    "on": ("on", "on top of"),
    "in": ("in", "inside"),
    "near": ("near", "close to", "next to"),
    "between": ("between", "halfway between"),
}
ENDS = {  # the first of a row of things, counted from there
    "left": "leftmost",
    "right": "rightmost",
    "front": "nearest",
    "back": "farthest",
    "big": "biggest",
    "small": "smallest",
}
ORDINALS = ("first", "second", "third", "fourth", "fifth")
VERBS = {  # the last third of each verb's phrases is held out of training (`splits`)
    "reach": (
        "reach {}", "move the gripper to {}", "touch {}",
        "go to {}", "bring the hand to {}", "make contact with {}",
    ),
    "lift": (
        "lift {}", "pick up {}", "raise {}",
        "take {} off the table", "hold {} up", "bring {} into the air",
    ),
    "push": (
        "push {} to {}", "slide {} onto {}", "move {} over to {}",
        "shove {} onto {}", "nudge {} over to {}", "get {} to lie on {}",
    ),
    "place": (
        "put {} on {}", "pick up {} and place it on {}", "set {} down on {}",
        "lay {} on {}", "carry {} over and leave it on {}", "let {} rest on {}",
    ),
    "arrange": (
        "put {} {}", "place {} {}", "set {} down {}",
        "move {} so that it is {}", "bring {} to a place {}", "see that {} ends up {}",
    ),
}  # fmt: skip
_WHERE = "arrange"  # its second gap is a relation and landmarks, not a thing
_BUT = "anywhere but "
CODE = 10  # numbers that hold a Description in a state row


@dataclass(frozen=True)
class Description:
    """What "the ..." says of a thing; None where nothing is said.

    without: a colour that it has not. rank: (end, count), ("left", 2) is the second from the left
    among the things that fit the rest. relation and landmarks: where it is; landmarks themselves
    have neither rank nor relation.
    """

    shape: str | None = None
    colour: str | None = None
    without: str | None = None
    rank: tuple[str, int] | None = None
    relation: str | None = None
    landmarks: tuple[Description, ...] = ()

    def text(self, form: int = 0) -> str:
        """Returns the words; form > 0 takes other words for the same."""
        end, count = self.rank or ("", 0)
        noun = _other(NOUNS[self.shape], form) if self.shape else "one"
        words = ["the", ENDS[end] if count == 1 else ORDINALS[count - 1] if count else ""]
        words += [self.colour or "", noun, f"from the {end}" if count > 1 else ""]
        words += [f"that is not {self.without}" if self.without else "", _place(self, form)]
        return " ".join(word for word in words if word)

    def code(self) -> list[int]:
        """Returns the `CODE` small whole numbers that `described` turns back."""
        end, count = self.rank or (None, 0)
        near = [(mark.shape, mark.colour) for mark in self.landmarks] + [(None, None)] * 2
        return [
            _number(SHAPES, self.shape), _number(NAMES, self.colour),
            _number(NAMES, self.without), _number(tuple(ENDS), end), count,
            _number(tuple(RELATIONS), self.relation),
            *(n for s, c in near[:2] for n in (_number(SHAPES, s), _number(NAMES, c))),
        ]  # fmt: skip


@dataclass(frozen=True)
class Instruction:
    """What is asked for: a verb, a thing and, of two-place verbs, where it shall be.

    relation is "on" of `push` and `place`, any of `arrange`; negated: anywhere but there.
    """

    verb: str
    thing: Description
    relation: str | None = None
    landmarks: tuple[Description, ...] = ()
    negated: bool = False

    def text(self, phrase: int = 0, form: int = 0) -> str:
        """Returns the words, by the verb's phrase number `phrase`."""
        gaps = [self.thing.text(form)]
        if self.verb == _WHERE:
            gaps.append(_BUT * self.negated + _place(self, form))
        else:
            gaps += [mark.text(form) for mark in self.landmarks]
        return VERBS[self.verb][phrase].format(*gaps)


def described(code: Sequence[float]) -> Description:
    """Returns the Description whose `code` these numbers are."""
    shape, colour, without, end, count, relation, *marks = (int(c) for c in code)
    near = [
        Description(_named(SHAPES, s), _named(NAMES, c))
        for s, c in zip(marks[::2], marks[1::2], strict=True)
    ]
    ends = tuple(ENDS)
    return Description(
        _named(SHAPES, shape), _named(NAMES, colour), _named(NAMES, without),
        (ends[end - 1], count) if end else None, _named(tuple(RELATIONS), relation),
        tuple(near[: landmarks(_named(tuple(RELATIONS), relation))]),
    )  # fmt: skip


def landmarks(relation: str | None) -> int:
    """Returns how many landmarks a relation has: two of "between", else one, or none of None."""
    return 0 if relation is None else 2 if relation == "between" else 1


_SHAPE_OF = {word: shape for shape, words in NOUNS.items() for word in words} | {"one": None}
_RELATION_OF = {word: relation for relation, words in RELATIONS.items() for word in words}
_END_OF = {word: end for end, word in ENDS.items()}
_COLOUR = "|".join(NAMES)
_THE = re.compile(
    rf"the (?:({'|'.join(_END_OF)}|{'|'.join(ORDINALS)}) )?(?:({_COLOUR}) )?"
    rf"({'|'.join(_SHAPE_OF)})(?: from the ({'|'.join(list(ENDS)[:4])}))?"
    rf"(?: that is not ({_COLOUR}))?"
    rf"(?: ({'|'.join(sorted(_RELATION_OF, key=len, reverse=True))}) (the .+))?"
)


def read(text: str) -> Description:
    """Returns what a noun phrase says, the inverse of `Description.text`.

    Raises ValueError, with the nearest word, for what is not of this grammar.
    """
    match = _THE.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is no description{_nearest(text)}")
    first, colour, noun, end, without, place, rest = match.groups()
    if (first in ORDINALS[1:]) != bool(end) or first == ORDINALS[0]:
        raise ValueError(f"{text!r} is no description: 'the second cube from the left' is one")
    rank = (end, ORDINALS.index(first) + 1) if end else (_END_OF[first], 1) if first else None
    relation = _RELATION_OF[place] if place else None
    return Description(_SHAPE_OF[noun], colour, without, rank, relation, _marks(relation, rest))


def readings(text: str) -> list[Instruction]:
    """Returns all that an instruction can mean in this grammar, [] if nothing."""
    found = []
    for verb, phrases in VERBS.items():
        for phrase in phrases:
            before, *middle, after = phrase.split("{}")
            if not (text.startswith(before) and text.endswith(after)):
                continue
            body = text[len(before) : len(text) - len(after)]
            cuts = [m.start() for m in re.finditer(re.escape(middle[0]), body)] if middle else [-1]
            for cut in cuts:
                gaps = (body[:cut], body[cut + len(middle[0]) :]) if middle else (body,)
                said = _reading(verb, *gaps)
                if said and said not in found:
                    found.append(said)
    return found


def understand(text: str) -> Instruction:
    """Returns what an instruction means. Raises ValueError if that is nothing, or not one thing."""
    found = readings(text)
    if len(found) != 1:
        why = f"can mean {len(found)} things" if found else f"is not understood{_nearest(text)}"
        raise ValueError(f"{text!r} {why}")
    return found[0]


def _reading(verb: str, thing: str, where: str | None = None) -> Instruction | None:
    try:
        if where is None:
            return Instruction(verb, read(thing))
        if verb != _WHERE:
            return Instruction(verb, read(thing), "on", _marks("on", where))
        negated, where = where.startswith(_BUT), where.removeprefix(_BUT)
        for words, relation in _RELATION_OF.items():
            if where.startswith(f"{words} the ") and (relation != "on" or negated):
                marks = _marks(relation, where[len(words) + 1 :])
                return Instruction(verb, read(thing), relation, marks, negated)
    except ValueError:  # these words are not a description, so this is no reading
        pass
    return None


def _marks(relation: str | None, text: str | None) -> tuple[Description, ...]:
    if relation is None or text is None:
        return ()
    parts = text.split(" and ") if relation == "between" else [text]
    marks = tuple(read(part) for part in parts)
    if len(marks) != landmarks(relation) or any(m.relation or m.rank or m.without for m in marks):
        raise ValueError(f"{text!r} names no {landmarks(relation)} landmarks by colour and shape")
    return marks


def _place(said: Description | Instruction, form: int) -> str:
    if not said.relation:
        return ""
    marks = " and ".join(mark.text(form) for mark in said.landmarks)
    return f"{_other(RELATIONS[said.relation], form)} {marks}"


def _other(words: tuple[str, ...], form: int) -> str:
    return words[form % len(words)]


def _number(words: tuple[str, ...], word: str | None) -> int:
    return 0 if word is None else words.index(word) + 1


def _named(words: tuple[str, ...], number: int) -> str | None:
    return words[number - 1] if number else None


def _nearest(text: str) -> str:
    known = {w for v in VERBS.values() for p in v for w in p.split()} | set(NAMES) | set(_SHAPE_OF)
    known |= {w for r in _RELATION_OF for w in r.split()} | set(_END_OF) | set(ORDINALS)
    for word in text.split():
        if word not in known | {"the", "that", "not", "from", *ENDS, "and", "anywhere", "but"}:
            near = difflib.get_close_matches(word, sorted(known - {"{}"}), 1)
            return f": no word {word!r}" + (f"; did you mean {near[0]!r}?" if near else "")
    return ""


def refer(which: int, things: Sequence[tuple[str, str]], form: int) -> str:
    """Returns words that pick out things[which] = (colour, shape) among all the things.

    form 0 names colour and shape; 1 the colour alone and 2 the shape alone, where that is enough
    to be understood (otherwise both are named).
    """
    colour, shape = things[which]
    others = [t for i, t in enumerate(things) if i != which]
    if form == 1 and all(c != colour for c, _ in others):
        return f"the {colour} one"
    if form == 2 and all(s != shape for _, s in others):
        return f"the {shape}"
    if (colour, shape) in others:
        raise ValueError(f"two things are a {colour} {shape}: no words tell them apart")
    return f"the {colour} {shape}"


def encode(text: str) -> np.ndarray:
    """Returns the text as utf-8 in uint8 `(128,)`, zero-padded.

    Raises ValueError if it is longer or holds a zero, with which it could not come back.
    """
    raw = text.encode()
    if 0 in raw:
        raise ValueError(f"an instruction holds no zero character, got {text!r}")
    if len(raw) > LENGTH:
        raise ValueError(f"an instruction has at most {LENGTH} bytes, got {len(raw)}: {text!r}")
    out = np.zeros(LENGTH, np.uint8)
    out[: len(raw)] = np.frombuffer(raw, np.uint8)
    return out


def decode(codes: np.ndarray) -> str:
    """Returns the text of an encoded instruction `(128,)` uint8."""
    return bytes(np.asarray(codes, np.uint8)).rstrip(b"\0").decode()
