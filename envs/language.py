"""Language: colours, shapes and a small grammar; from what a scene holds to a sentence about it."""

from __future__ import annotations

from collections.abc import Sequence

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
