"""Maze: cells and the walls between them, drawn at random, and the shortest way; knows no task.

Cells are numbered row by row from the corner at (-x, -y): cell = SIDE * row + column, a row along
x. An edge is a place between two neighbours, where a wall can be.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SIDE, CELL = 5, 0.8  # cells along a side; m
EDGES = tuple(
    [(SIDE * r + c, SIDE * r + c + 1) for r in range(SIDE) for c in range(SIDE - 1)]
    + [(SIDE * r + c, SIDE * r + c + SIDE) for r in range(SIDE - 1) for c in range(SIDE)]
)
LOOPS = 3  # walls that a tree of cells would have and this has not: there are several ways
WALLS = (SIDE - 1) ** 2 - LOOPS  # a spanning tree of the cells leaves (SIDE - 1)^2 edges closed
_CELLS = SIDE * SIDE
MEMORY = len(EDGES) + 2 * _CELLS  # numbers of a state row: walls, cells to go to each of two goals
_FAR = 4  # cells from the start to a goal, at least
_NEXT = np.full((_CELLS, 4), -1)  # the neighbours at +x, -x, +y, -y, or -1
_EDGE = np.zeros((_CELLS, 4), int)  # the edges to them
for _k, (_a, _b) in enumerate(EDGES):
    _d = 0 if _b == _a + 1 else 2
    _NEXT[_a, _d], _NEXT[_b, _d + 1] = _b, _a
    _EDGE[_a, _d] = _EDGE[_b, _d + 1] = _k
_LINKS = [
    [(int(b), int(e)) for b, e in zip(_NEXT[k], _EDGE[k], strict=True) if b >= 0]
    for k in range(_CELLS)
]
_MIDDLES = np.array([((k % SIDE) - 2, k // SIDE - 2) for k in range(_CELLS)]) * CELL


def middle(cell: int) -> np.ndarray:
    """Returns the middle of a cell, `(2,)` in m."""
    return _MIDDLES[cell]


def edge(which: int) -> tuple[float, float, bool]:
    """Returns an edge's middle x, y (m), and whether a wall there runs along x (else along y)."""
    a, b = EDGES[which]
    x, y = (_MIDDLES[a] + _MIDDLES[b]) / 2
    return x, y, b != a + 1


def draw(rng: np.random.Generator) -> np.ndarray:
    """Draws which edges are walls, `(edges,)` bool, `WALLS` of them; every cell can be reached.

    Source: Kruskal 1956, "On the shortest spanning subtree of a graph", with random weights.
    """
    tree = list(range(_CELLS))

    def root(cell: int) -> int:
        while tree[cell] != cell:
            cell = tree[cell]
        return cell

    closed = []
    for k in rng.permutation(len(EDGES)).tolist():
        a, b = (root(cell) for cell in EDGES[k])
        if a == b:
            closed.append(k)
        tree[a] = b
    out = np.zeros(len(EDGES), bool)
    out[closed[LOOPS:]] = True
    return out


def hops(closed: np.ndarray, goal: int) -> np.ndarray:
    """Returns how many steps from cell to cell each cell is from `goal`, `(cells,)`."""
    walls, out, ring = closed.tolist(), [-1] * _CELLS, [goal]
    out[goal] = 0
    for cell in ring:  # it grows while it is walked
        for other, k in _LINKS[cell]:
            if out[other] < 0 and not walls[k]:
                out[other] = out[cell] + 1
                ring.append(other)
    return np.array(out)


def ends(rng: np.random.Generator, closed: np.ndarray) -> list[int]:
    """Draws a start and two goals, cells that are not near the start."""
    start = int(rng.integers(_CELLS))
    far = np.flatnonzero(hops(closed, start) >= _FAR)
    return [start, *rng.permutation(far)[:2].tolist()]


class Way(NamedTuple):
    """Where to head for (n, 2) in m, whether on from there (n,) bool, and how far it is (n,) m."""

    towards: np.ndarray
    on: np.ndarray
    left: np.ndarray


def way(memory: np.ndarray, which: np.ndarray, place: np.ndarray, goal: np.ndarray) -> Way:
    """Returns the shortest way from `place` (n, 2) to `goal` (n, 2), number `which` (n,) of two.

    memory: `(n, MEMORY)`, the walls and the cells' `hops` to each goal.
    """
    rows = np.arange(len(place))
    walls, steps = memory[:, : len(EDGES)], memory[:, len(EDGES) :].reshape(-1, 2, _CELLS)
    steps = steps[rows, which]
    column = np.clip(np.floor(place / CELL + SIDE / 2), 0, SIDE - 1).astype(int)
    cell = column[:, 0] + SIDE * column[:, 1]
    open_ = (_NEXT[cell] >= 0) & (walls[rows[:, None], _EDGE[cell]] == 0)
    best = np.where(open_, steps[rows[:, None], _NEXT[cell]], np.inf).argmin(1)
    here, there = _MIDDLES[cell], _MIDDLES[_NEXT[cell, best]]
    arrived = steps[rows, cell] == 0
    # First to the line between the two middles, then along it: corners are not cut.
    along = (there - here) / CELL
    off = place - here
    aside = np.abs(off[:, 0] * along[:, 1] - off[:, 1] * along[:, 0])
    towards = np.where((aside < 0.1)[:, None], there, here)
    gate = place - (here + there) / 2
    rest = CELL * (steps[rows, cell] - 0.5) + np.sqrt(gate[:, 0] ** 2 + gate[:, 1] ** 2)
    last = place - goal
    left = np.where(arrived, np.sqrt(last[:, 0] ** 2 + last[:, 1] ** 2), rest)
    return Way(np.where(arrived[:, None], goal, towards), ~arrived & (aside < 0.1), left)
