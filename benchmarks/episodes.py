"""Measures recording and sampling of episodes; writes results/episodes.json."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

from record import record
from umwelten.episodes import Episodes, Recorder

LENGTH, ROWS = 50, 64
KEYS = ("proprio", "objects", "action", "reward", "terminal", "valid", "first", "last")
WINDOWS, STEPS = 256, 4


def step_of(n: int, t: int, rng: np.random.Generator, pixels: bool) -> dict[str, np.ndarray]:
    """Returns step t of n rows whose episodes all last LENGTH steps."""
    place = t % LENGTH
    step = {
        "first": np.full(n, place == 0),
        "last": np.full(n, place == LENGTH - 1),
        "terminal": np.zeros(n, bool),
        "valid": np.ones(n, bool),
        "reward": rng.random(n, np.float32),
        "action": rng.random((n, 7), np.float32),
        "proprio": rng.random((n, 22), np.float32),
        "objects": rng.random((n, 14), np.float32),
        "instruction": np.zeros((n, 128), np.uint8),
        "time": np.full(n, 0.1 * place),
    }
    if pixels:
        step["rgb/front"] = rng.integers(0, 256, (n, 64, 64, 3), np.uint8)
    return step


def write(folder: str, n: int, shards: int, pixels: bool = False) -> dict[str, float]:
    """Records shards of n episodes; returns ms per step (no end in it) and per finished episode."""
    rng, between, ending = np.random.default_rng(0), [], []
    with Recorder(folder) as recorder:
        for t in range(shards * LENGTH):
            step = step_of(n, t, rng, pixels)
            start = time.perf_counter()
            done = recorder.add(step)
            (ending if done else between).append(1e3 * (time.perf_counter() - start))
    return {
        "rows": n,
        "add_ms": round(float(np.median(between)), 4),
        "episode_ms": round(float(np.median(ending)) / n, 4),
    }


def median_ms(call, repeats: int = 200) -> float:
    """Returns the median time of a call, in ms, after ten calls that do not count."""
    times = []
    for _ in range(repeats + 10):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return round(float(np.median(times[10:])), 4)


def read(folder: str, keys: tuple[str, ...] | None) -> dict:
    """Returns ms to open a folder, to look for news, and to sample a batch from it."""
    start = time.perf_counter()
    episodes = Episodes(folder, keys=keys)
    opened = 1e3 * (time.perf_counter() - start)
    time.sleep(2.1)  # a folder that changed this moment is listed again at each refresh
    episodes.refresh()
    nothing_new = median_ms(episodes.refresh)
    rng = np.random.default_rng(0)
    result = {
        "episodes": len(episodes),
        "steps": episodes.steps,
        "open_ms": round(opened, 2),
        "refresh_ms": nothing_new,
        "sample_ms": median_ms(lambda: episodes.sample(rng, WINDOWS, STEPS)),
        "refresh_with_one_new_shard_ms": [],
    }
    first = Path(folder, "shard-000000.safetensors").read_bytes()
    for number in range(3):  # the first of them doubles the arrays
        Path(folder, f"shard-90000{number}.safetensors").write_bytes(first)
        start = time.perf_counter()
        episodes.refresh()
        took = 1e3 * (time.perf_counter() - start)
        result["refresh_with_one_new_shard_ms"].append(round(took, 2))
    return result


def main() -> None:
    results: dict = {"windows": WINDOWS, "steps_per_window": STEPS, "keys": KEYS, "vector": {}}
    for shards in (1, 100, 1000):
        with tempfile.TemporaryDirectory() as folder:
            written = write(folder, ROWS if shards < 1000 else 4, shards)
            results["vector"][f"{shards}_shards"] = written | read(folder, KEYS)
            print(shards, results["vector"][f"{shards}_shards"], flush=True)
    keys = (*KEYS, "rgb/front")
    results["pixels"] = {}
    for n, shards in ((64, 8), (1, 300)):
        with tempfile.TemporaryDirectory() as folder:
            name = f"{shards}_shards_of_{n}"
            results["pixels"][name] = write(folder, n, shards, True) | read(folder, keys)
            print(name, results["pixels"][name], flush=True)
    results["one_row"] = {}
    with tempfile.TemporaryDirectory() as folder:
        results["one_row"] = write(folder, 1, 100)
    with tempfile.TemporaryDirectory() as folder:
        results["rows_256"] = write(folder, 256, 4)
    print(results["one_row"], results["rows_256"])
    print(Path(record("episodes", results)).name)


if __name__ == "__main__":
    main()
