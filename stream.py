"""Stream: the steps of a world that is acted in, to be learnt from as soon as they are taken.

It knows the rows of a world and the folder that they are recorded into; no model, no loop.
"""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
import torch
from torch import Tensor

from .replay import Replay


class Stream:
    """Where batches come from while n rows are acted in: their steps as they come, and `others`.

    All that a row goes through is one run of steps, one episode behind the other, and a window may
    go from one into the next. Steps of finished episodes come from `own`, the Replay of the folder
    that one Recorder writes; those of unfinished ones are held here, on the host.

    New windows come first, each once and as soon as its last step is there: those of a row are laid
    end to end, beginning anew behind a step that is not valid. All windows of all rows and of
    `others`, the Replay of other folders, are drawn alike often.

    A step's place, by which a model may know it, never changes: k n + row for the k-th step, from
    0, that was recorded of a row, and -2 - s for the others' step s. There is no step at -1.
    """

    def __init__(self, own: Replay, n: int, others: Replay | None = None):
        self.own, self.n, self.others = own, n, others
        self._rows: list[int] = []  # of each recorded episode
        self._lies = np.zeros(0, np.int64)  # by place: where in `own`, -1 in hand
        self._count = np.zeros(n, np.int64)  # steps of each row
        self._begin = np.zeros(n, np.int64)  # those of them that are recorded
        self._served = np.zeros(n, np.int64)  # those that no new window holds any more
        self._faults: list[list[int]] = [[] for _ in range(n)]  # steps of a row that are not valid
        self._inside = np.zeros(n, bool)  # of an episode
        self._hand: dict[str, np.ndarray] = {}  # (n, capacity, ...), from `_begin` on

    def add(self, step: dict[str, np.ndarray]) -> np.ndarray:
        """Takes a step (n, ...) that the recorder has taken; returns its places (n,) int64.

        It is -1 for a row between two episodes. Raises RuntimeError where the folder does not hold
        the episodes that have ended, and nothing else that is new.
        """
        self._inside = self._inside | step["first"]
        rows = np.flatnonzero(self._inside)
        place = np.full(self.n, -1, np.int64)
        place[rows] = self._count[rows] * self.n + rows
        keys = self.own.episodes.keys or tuple(step)
        self._hold(rows, {key: step[key][rows] for key in keys})
        ended = rows[step["last"][rows]]
        if len(ended):
            self._settle(ended)
        return place

    def count(self, t: int) -> int:
        """Returns how many windows of t steps there are to draw from."""
        others = self.others.episodes.count(t) if self.others else 0
        return int(self._windows(t)[2].sum()) + others

    def refresh(self) -> int:
        """Takes in what has appeared in other folders; returns how many episodes came with it."""
        return self.others.refresh() if self.others else 0

    def sample(self, rng: np.random.Generator, b: int, t: int) -> dict[str, Tensor]:
        """Returns b windows of t steps, as `Replay.read` does: new ones, and then drawn ones.

        A function of the generator's state and of all that was added and sampled before. Raises
        ValueError if there is no window.
        """
        row, at = self._new(b, t)
        mine, total = int(self._windows(t)[2].sum()), self.count(t)
        if not total:
            raise ValueError(f"no window of {t} valid steps yet; act on before learning")
        others = int(rng.binomial(b - len(row), 1 - mine / total)) if mine < total else 0
        more, since = self._drawn(rng, b - len(row) - others, t)
        found = []
        if others < b:
            found.append(self._read(np.append(row, more), np.append(at, since), t))
        if others:
            batch = self.others.sample(rng, others, t)
            found.append(batch | {"place": -2 - batch["place"]})
        return {key: torch.cat([x[key] for x in found]) for key in found[0]}

    def save(self) -> dict[str, np.ndarray]:
        """Returns what `restore` needs besides the folder and the recorder's `in_hand`."""
        return {"rows": np.array(self._rows, np.int64), "served": self._served.copy()}

    def restore(self, saved: dict[str, np.ndarray], hand: dict[str, np.ndarray]) -> None:
        """Goes on where `save` was called, as new; hand: what the recorder's `in_hand` gave then.

        Raises ValueError where the folder holds other episodes than were saved.
        """
        rows, lengths = saved.get("rows", np.zeros(0, np.int64)), self.own.episodes.lengths
        if len(rows) != len(lengths):
            raise ValueError(
                f"a checkpoint that knows the rows of {len(rows)} episodes does not go with a "
                f"folder of {len(lengths)}; train into another folder"
            )
        self._rows, self._served = rows.tolist(), saved.get("served", self._served).copy()
        starts = np.cumsum(lengths) - lengths
        valid = [np.zeros(0, bool), *(x["valid"] for x in self.own.episodes.pieces())]
        wrong = ~np.concatenate(valid)
        for row in range(self.n):
            mine = np.flatnonzero(rows == row)
            lies = [np.arange(starts[e], starts[e] + lengths[e]) for e in mine]
            whole = np.concatenate([np.zeros(0, np.int64), *lies])
            self._reach(len(whole))
            self._lies[np.arange(len(whole)) * self.n + row] = whole
            self._begin[row] = self._count[row] = len(whole)
            self._faults[row] = np.flatnonzero(wrong[whole]).tolist()
        if hand:
            row, length = hand["hand/row"], hand["hand/length"]
            keys = self.own.episodes.keys or [k for k in hand if not k.startswith("hand/")]
            offset = np.cumsum(length) - length
            for age in range(int(length.max())):
                on = age < length
                self._hold(row[on], {key: hand[key][(offset + age)[on]] for key in keys})
            self._inside[row] = True

    def _hold(self, rows: np.ndarray, values: dict[str, np.ndarray]) -> None:
        """Takes into the hand the next step (m, ...) of some rows (m,)."""
        age = self._count[rows] - self._begin[rows]
        most = int(age.max(initial=0))
        for key, value in values.items():
            held = self._hand.get(key)
            if held is None or held.shape[1] <= most:
                room = np.empty((self.n, 2 * most + 32, *value.shape[1:]), value.dtype)
                if held is not None:
                    room[:, : held.shape[1]] = held
                held = self._hand[key] = room
            held[rows, age] = value
        for row in rows[~values["valid"]].tolist():
            self._faults[row].append(int(self._count[row]))
        self._count[rows] += 1
        self._reach(int(self._count.max()))

    def _reach(self, count: int) -> None:
        """Makes room for the places of so many steps of each row."""
        if count * self.n > len(self._lies):
            more = np.full(count * self.n * 3 // 2 + 1024 - len(self._lies), -1, np.int64)
            self._lies = np.append(self._lies, more)

    def _settle(self, ended: np.ndarray) -> None:
        """Finds the episodes of these rows, which have just ended, in the folder."""
        episodes, steps = self.own.episodes, self.own.episodes.steps
        length = self._count[ended] - self._begin[ended]
        found = self.own.refresh()
        if not np.array_equal(episodes.lengths[len(episodes) - found :], length):
            raise RuntimeError(
                f"the rows {ended.tolist()} ended episodes of {length.tolist()} steps, but others "
                "are new in their folder; let nobody else write into it"
            )
        for row, m, stop in zip(ended, length, steps + np.cumsum(length), strict=True):
            at = np.arange(self._begin[row], self._count[row])
            self._lies[at * self.n + row] = np.arange(stop - m, stop)
        self._begin[ended], self._inside[ended] = self._count[ended], False
        self._rows += ended.tolist()

    def _windows(self, t: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns row, first step and count of the windows of t steps, by run of valid steps."""
        edges = [np.array([-1, *f, c]) for f, c in zip(self._faults, self._count, strict=True)]
        row = np.repeat(np.arange(self.n), [len(e) - 1 for e in edges])
        start, stop = (np.concatenate([e[s] for e in edges]) for s in (np.s_[:-1], np.s_[1:]))
        return row, start + 1, np.maximum(stop - start - t, 0)

    def _drawn(self, rng: np.random.Generator, b: int, t: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns row and first step, (b,) each, of windows drawn from all of the rows alike."""
        row, start, count = self._windows(t)
        ends = np.cumsum(count)
        number = rng.integers(0, ends[-1], b) if b else np.zeros(0, np.int64)
        run = np.searchsorted(ends, number, side="right")
        return row[run], start[run] + number - (ends - count)[run]

    def _new(self, b: int, t: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns row and first step of the next new windows, up to b, and takes them as served."""
        row, at = [], []
        while len(row) < b:
            begin = np.array([self._behind(i, t) for i in range(self.n)])
            ready = np.flatnonzero(begin + t <= self._count)
            if not len(ready):
                break
            i = ready[begin[ready].argmin()]
            row.append(i)
            at.append(begin[i])
            self._served[i] = begin[i] + t
        return np.array(row, np.int64), np.array(at, np.int64)

    def _behind(self, row: int, t: int) -> int:
        """Returns the first step from which on t of a row are valid, as far as it is known."""
        begin, faults = int(self._served[row]), self._faults[row]
        for fault in faults[bisect_left(faults, begin) :]:
            if fault >= begin + t:
                break
            begin = fault + 1
        return begin

    def _read(self, row: np.ndarray, at: np.ndarray, t: int) -> dict[str, Tensor]:
        """Returns the windows from the steps `at` (b,) of rows (b,) on, and `place` (b, 1 + t)."""
        steps = at[:, None] + np.arange(-1, t)
        place = np.where(steps < 0, -1, steps * self.n + row[:, None])
        lies, rows = self._lies[place[:, 1:]], np.repeat(row, t)
        hand = np.flatnonzero(lies.flatten() < 0)
        batch = {} if len(hand) == lies.size else self.own.gather(np.maximum(lies, 0))
        if len(hand):
            rows, steps = rows[hand], steps[:, 1:].flatten()[hand]
            index, age = self._send(hand), steps - self._begin[rows]
            for key, held in self._hand.items():
                value = self._send(held[rows, age])
                if key in batch:
                    batch[key].flatten(0, 1)[index] = value
                else:
                    batch[key] = value.unflatten(0, lies.shape)
        return batch | {"place": self._send(place)}

    def _send(self, x: np.ndarray) -> Tensor:
        return self.own.send(torch.from_numpy(x))
