"""Probe: the verb; what a world model knows, on episodes that it did not learn from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from .agents.policy import Carry, Expert, Policy, Random, Step
from .config import ConfigError
from .score import HELD_OUT, student

BASELINES = ("persistence", "velocity", "mean")
ROWS, STRETCH = 16, 5  # that act at a time; decisions between two coins
PARTS = {"fit": 0.5, "validate": 0.2, "test": 0.3}  # of the episodes; the model knows none of them


def probe(
    run: str = "",
    task: str = "",
    sources: tuple = (),
    episodes: int = 60,
    policy: str = "",
    context: int = 4,
    horizon: int = 15,
    windows: int = 6,
    seed: int = 0,
    device: str = "cpu",
    shown: int = 3,
    out: str = "",
    world: dict | None = None,
) -> None:
    """Measures what a world model knows: how far it foresees, and what its belief contains.

    All of it on episodes that the model did not learn from: k-step open-loop errors beside
    persistence and constant velocity, linear probes of ground truth, retrieval of the future,
    and, where episodes end before their time, how surely the end is foreseen.
    Writes probe.json, curves.png, probes.png, strip.png and, where images are decoded,
    imagined.mp4 into a folder.

    run: folder of a training; without it the simulator itself is measured
    task: what is asked, where no run says so
    sources: folders of recorded episodes; else episodes are recorded under seeds held out
    episodes: how many to record
    policy: random, expert, a planner or prior (of the run); default the expert where there is
        one, with stretches of random actions
    context: steps of a window that are observed, as all that came before them is
    horizon: steps that are imagined from there
    windows: of an episode, at most
    seed: of what is drawn, and where in the held-out seeds to begin
    device: auto, cpu or cuda
    shown: windows in the video and the strip
    out: the folder, default RUN/probe
    world: robot, control, split, senses, vary, reward: world.split=test_colours

    umwelten probe run=runs/demo/train
    umwelten probe run=runs/demo/train sources=[runs/reach-random] horizon=10
    """
    from rich.console import Console

    from . import build, pictures

    if context < 2 or horizon < 1 or episodes < 1 or windows < 1:
        raise ConfigError("context is at least 2; horizon, episodes and windows at least 1")
    folder, console = Path(out or (f"{run}/probe" if run else f"runs/{task}-probe")), Console()
    told = build.world_of(run, 1, (), world)
    learnt = build.config_of(run)["task"] if run else task
    name = task or learnt
    if not name or "+" in name:
        raise ConfigError(f"say of which task: run=FOLDER task=NAME, one alone, not {name!r}")
    env = build.make_env(learnt, min(episodes, ROWS), labels=True, physics=not run, **told)
    env = build.alone(env, name)
    models = _models(run, env, device, seed)
    recorded = sources or [_record(folder, env, policy, run, range(episodes), seed)]
    parts = _parts(recorded, run, context + horizon, windows, seed)
    found, views = _measure(models, parts, _readable(env, parts), context, seed)
    found = {
        "run": run, "task": name, "model": type(models["trained"]).__name__,
        "episodes": {k: _count(p) for k, p in parts.items()},
        "windows": {k: len(p.episode) for k, p in parts.items()},
        "mode": "dataset replay" if sources else "held-out seeds", "sources": [*map(str, recorded)],
        "context": context, "horizon": horizon, "seed": seed, **found,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "probe.json").write_text(json.dumps(found, indent=1, allow_nan=False))
    for path in pictures.draw(folder, found, views, shown):
        console.print(f"wrote {path}", soft_wrap=True, highlight=False)
    for table in tables(found):
        console.print(table, "")


def _models(run: str, env, device: str, seed: int) -> dict:
    """Returns the model `trained` and, of a run, as it was before, `untrained`."""
    from . import build

    if not run:
        return {"trained": build.make_model({"name": "simulator_model"}, build.simulation(env))}
    model, told = build.restore(run, env, device)
    raw = build.make_model(told["model"], env, device=device, seed=told["seed"])
    return {"trained": model, "untrained": raw}


def _readable(env, parts: dict) -> tuple[str, ...]:
    """Returns the observations that are measured: vectors and images that were recorded."""
    there, space = parts["test"].windows, env.single_observation_space
    vectors = [k for k, s in space.items() if s.dtype == np.float32 and len(s.shape) == 1]
    return tuple(k for k in space if k in there and (k in vectors or k.startswith("rgb/")))


def _measure(models: dict, parts: dict, keys: tuple[str, ...], context: int, seed: int):
    """Returns what was measured, as plain numbers, and the Views to draw."""
    import torch

    from .world_models.measures import Measured

    done = {}
    for name, model in models.items():
        rng = torch.Generator(model.device).manual_seed(seed)
        done[name] = Measured(model, parts, keys, context, rng)
    trained, beliefs = done["trained"], done["trained"].belief()
    probes = {k: {w: _readings(r) for w, r in v.items()} for k, v in trained.probes().items()}
    if "untrained" in done:
        for name, ways in done["untrained"].probes().items():
            probes[name]["untrained"] = _readings(ways["observed"])
    found = {
        "errors": {k: _plain(v) | _margins(v) for k, v in trained.errors().items()},
        "reward": _plain(trained.reward()) | _margins(trained.reward(), 1),
        "ends": _plain(trained.ends()),
        "belief": _plain(beliefs) | _margins(beliefs, 0, ("held",)),
        "retrieval": _plain(trained.retrieval()), "probes": probes,
    }  # fmt: skip
    return found, trained.views()


def _plain(value):
    """Returns results with a mean and a 95 % interval over episodes for each curve (E, k)."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return _interval(value.numpy()) if hasattr(value, "ndim") else value


def _interval(values: np.ndarray) -> dict:
    """Returns mean and 95 % interval over episodes of a curve (E, k), None where there is none."""
    spans = np.array([student(v) for v in values.T])
    parts = {"mean": values.mean(0), "low": spans[:, 0], "high": spans[:, 1]}
    return {name: _finite(part) for name, part in parts.items()}


def _margins(curves: dict, first: int = 0, baselines: tuple = BASELINES) -> dict:
    """Returns by how much what is imagined errs more than each baseline does, and where less.

    Differences are of the same episode. `better`: the k where they are surely below 0 (the whole
    95 % interval is) for every baseline.
    """
    if not curves:
        return {}
    mine = curves["imagined"].numpy()
    margins = {k: _interval(mine - curves[k].numpy()) for k in baselines if k in curves}
    tops = zip(*(margin["high"] for margin in margins.values()), strict=True)
    better = [k for k, top in enumerate(tops, first) if all(t is not None and t < 0 for t in top)]
    return {"margins": margins, "better": better}


def _readings(readings: list) -> dict:
    """Returns a probe's scores over k, with 95 % intervals by the jackknife, and what chance is."""
    spans = np.array([student(r.pseudo.numpy()) for r in readings])
    return {
        "measure": readings[0].measure, "mean": _finite([r.score for r in readings]),
        "chance": _finite([r.chance for r in readings]),
        "low": _finite(spans[:, 0]), "high": _finite(spans[:, 1]),
    }  # fmt: skip


def _finite(values) -> list[float | None]:
    return [round(float(v), 6) if np.isfinite(v) else None for v in values]


class Stirred(Policy):
    """Does what the task's expert does, or for stretches what chance does, a coin for each.

    So what a step is like does not give away how well the episode goes.
    """

    def __init__(self, env):
        self._expert, self._random = Expert(env), Random(env.single_action_space.shape[0])

    def start(self, seeds: np.ndarray) -> Carry:
        return self._random.start(seeds)

    def act(self, step: Step, carry: Carry) -> tuple[np.ndarray, Carry]:
        calm, _ = self._expert.act(step, {})
        wild, after = self._random.act(step, carry)
        stretches = zip(carry["seed"].tolist(), (carry["count"] // STRETCH).tolist(), strict=True)
        coins = [np.random.default_rng([1, *stretch]).random() < 0.5 for stretch in stretches]
        return np.where(np.array(coins)[:, None], wild, calm), after


def _record(folder: Path, env, policy: str, run: str, which: range, seed: int) -> Path:
    """Records labelled episodes under held-out seeds, those that are not there yet."""
    from rich.progress import track

    from . import build
    from .collect import one_each, seeds_there
    from .episodes import Recorder

    if policy:
        actor = build.make_policy(policy, env, run)
    else:
        scripted = env.task.expert(env.sim) is not None
        actor = Stirred(env) if scripted else Random(env.single_action_space.shape[0])
    path = folder / "episodes" / type(actor).__name__.lower()
    info = {"policy": type(actor).__name__, "fingerprint": env.fingerprint}
    have = seeds_there(path, info)
    todo = [s for s in (HELD_OUT + seed + i for i in which) if s not in have]
    with Recorder(path, info) as recorder:
        for step in track(one_each(env, actor, todo), "recording", transient=True):
            recorder.add(step)
    return path


def _parts(sources, run: str, size: int, windows: int, seed: int) -> dict:
    """Returns windows of episodes that the run did not learn from, split by episode."""
    import torch

    from .episodes import Episodes
    from .world_models.measures import Part

    for source in sources:
        if not Path(source).is_dir():
            raise ConfigError(f"no folder {source} to measure on; collect episodes into it")
    whole, parts = Episodes([*map(str, sources)]), {}
    learnt = _learnt(run)
    for name, view in zip(PARTS, whole.split(seed, tuple(PARTS.values())), strict=True):
        new = ~np.isin(view.column("episode/id"), learnt) if len(view) else np.zeros(0, bool)
        found = view.windows(size, 1)
        found = found[new[found[:, 0]]]
        chosen = [_spread(found[found[:, 0] == e], windows) for e in np.unique(found[:, 0])]
        if len(chosen) < 2:
            raise ConfigError(
                f"{len(chosen)} episodes of {size} steps and more that the model did not learn "
                f"from are left to {name} of {len(whole)}; record more, or ask for a shorter "
                "context or horizon"
            )
        rows = np.concatenate(chosen)
        taken = {k: torch.from_numpy(v) for k, v in view.take(rows, size).items()}
        _, episode = np.unique(rows[:, 0], return_inverse=True)
        parts[name] = Part(taken, torch.from_numpy(episode), (view, rows))
    return parts


def _learnt(run: str) -> np.ndarray:
    """Returns the ids of the episodes that a run learned from, as far as they are there."""
    from . import build
    from .episodes import Episodes

    if not run:
        return np.zeros(0, np.uint64)
    folders = [Path(run) / "episodes", *map(Path, build.config_of(run)["sources"])]
    for folder in (f for f in folders[1:] if not f.is_dir()):
        print(f"the run learned from {folder}, which is not there: nothing of it is left out")
    there = [Episodes(f, keys=()) for f in folders if f.is_dir()]
    ids = [e.column("episode/id") for e in there if len(e)]
    return np.concatenate([np.zeros(0, np.uint64), *ids])


def _spread(rows: np.ndarray, most: int) -> np.ndarray:
    """Returns at most `most` of the rows, as far apart as can be."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int))]


def _count(part) -> int:
    return int(part.episode.max()) + 1


def tables(found: dict) -> list:
    """Returns rich tables of what was measured: errors, beliefs, and probes and ends if any."""
    ends = [_ends_table(found)] if found["ends"] else []
    probes = [_probes_table(found)] if found["probes"] else []
    return [_errors_table(found), _beliefs_table(found), *probes, *ends]


def titled(title: str, *columns: str):
    """Returns an empty rich table, its first column names and the others figures."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    return table


def _steps(found: dict) -> list[int]:
    """Returns the first, a middle and the last step that is imagined."""
    last = found["horizon"]
    return sorted({1, (1 + last) // 2, last})


def _errors_table(found: dict):
    columns = ("imagined", "observed", "held", "persistence", "velocity", "mean")
    title = "open-loop error, 1: predicting the mean"
    table = titled(title, "key", "k", *columns, "better at k")
    for name, curves in {**found["errors"], "reward": found["reward"]}.items():
        for k in _steps(found) if curves else ():
            i = k - (found["horizon"] + 1 - len(curves["imagined"]["mean"]))
            by = f" ({curves['by']})" if "by" in curves else ""
            head, where = (name + by, _spans(curves["better"])) if k == 1 else ("", "")
            others = (_mean(curves.get(c), i) for c in columns[1:])
            table.add_row(head, str(k), _pm(curves["imagined"], i), *others, where)
    return table


def _beliefs_table(found: dict):
    belief, chances = found["belief"], found["retrieval"]
    title = f"beliefs, {belief['dimensions']:.1f} of {belief['size']} dimensions in use"
    table = titled(title, "measure", "k", "imagined", "held", "chance")
    rows = {"error, 1: the mean belief": (belief, 2**0.5)}
    for name in (k for k in chances if k != "pool"):
        rows[f"{name} of {chances['pool']}"] = (chances[name], chances[name]["chance"])
    rows["in its own time"] = ({"imagined": belief["order"]}, 0.5)
    rows["pace, 1: as observed"] = ({"imagined": belief["pace"]}, None)
    for name, (curves, chance) in rows.items():
        for k in _steps(found):
            i = k - (found["horizon"] + 1 - len(curves["imagined"]["mean"]))
            head, luck = (name if k == 1 else ""), ("" if chance is None else f"{chance:.2f}")
            table.add_row(
                head, str(k), _pm(curves["imagined"], i), _mean(curves.get("held"), i), luck
            )
    return table


def _probes_table(found: dict):
    last = found["horizon"]
    columns = ("untrained", "recorded", "observed", "held")
    title = f"linear probes at k = {last}: R², * balanced accuracy"
    table = titled(title, "label", "chance", "imagined", *columns)
    for name, ways in found["probes"].items():
        star = "" if ways["imagined"]["measure"] == "R²" else " *"
        others = (_mean(ways.get(way), last) for way in columns)
        chance = _number(ways["imagined"]["chance"][last])
        table.add_row(name + star, chance, _pm(ways["imagined"], last), *others)
    return table


def _ends_table(found: dict):
    table, ends = titled("ends, as probabilities", "where", "told"), found["ends"]
    names = {"at": "an episode ends", "elsewhere": "it goes on", "error": "error, squared"}
    for key, name in (names | {"rate": "error, telling the rate"}).items():
        table.add_row(name, _pm(ends[key], 0))
    return table


def _pm(curve: dict, i: int) -> str:
    """Returns a curve's mean at i with half its interval."""
    low, high = curve["low"][i], curve["high"][i]
    return _mean(curve, i) + (" ± ?" if low is None else f" ± {(high - low) / 2:.2f}")


def _mean(curve: dict | None, i: int) -> str:
    return "" if curve is None else _number(curve["mean"][i])


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:.2f}"


def _spans(ks: list[int]) -> str:
    """Returns numbers as ranges: 1-3, 7."""
    if not ks:
        return "none"
    starts = [k for k in ks if k - 1 not in ks]
    ends = [k for k in ks if k + 1 not in ks]
    pairs = zip(starts, ends, strict=True)
    return ", ".join(f"{a}-{b}" if a < b else str(a) for a, b in pairs)
