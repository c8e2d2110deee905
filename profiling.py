"""Profiling: the verb `profile`; where the time of a loop goes, by stage, timed from outside.

Public calls are wrapped while it lasts: what is measured runs the code that it always runs. (The
file is not called `profile`, for Python's own module of that name is what debuggers import.)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from time import perf_counter

import numpy as np

from .config import ConfigError
from .probe import titled

WITHIN = {  # stage: those that are part of it; what is left of it has a name of its own
    "round": ("world and camera", "decision"),
    "world and camera": ("rendering",),
    "decision": ("observation", "planning"),
}
LEFT = {"round": "loop", "world and camera": "world", "decision": "rest of the decision"}
STAGES = ("world", "rendering", "observation", "planning", "rest of the decision", "loop", "round")
EPISODES = 4  # recorded to learn from, where a run has none
TRACED = 3  # rounds in a trace


def profile(
    task: str = "",
    policy: str = "",
    run: str = "",
    agent: str = "",
    rounds: int = 200,
    warmup: int = 10,
    updates: int = 20,
    n: int = 1,
    threads: int = 1,
    seed: int = 0,
    device: str = "cpu",
    action_repeat: int = 1,
    cameras: tuple = (),
    trace: bool = False,
    out: str = "",
    model: dict | None = None,
    planner: dict | None = None,
    learner: dict | None = None,
    world: dict | None = None,
) -> None:
    """Measures where the time of a loop goes: world, rendering, observation, planning, updates.

    Prints and writes into a folder, as profile.json: percentiles of each stage, of the control
    latency beside the control period, steps, decisions and updates a second, and how much faster
    than real time it runs. What an update changes is not kept.

    task: what is asked, where no run says so
    policy: random, expert, a planner (through the simulator, or a run's model) or a run's prior,
        ppo, sac, td3; default a run's own
    run: folder of a training
    agent: instead of both, a whole agent that has learnt nothing: as fast as one that has
    rounds: steps of all rows that are measured
    warmup: rounds before those, and updates before those that are measured
    updates: updates of the model that are measured, 0 for none
    n: rows that act at a time
    threads: of torch and of the simulations; 0 for all of this process's processors
    seed: of rows, windows and of an agent's weights
    device: auto, cpu or cuda
    action_repeat: control steps that an action lasts; a run's own where one is given
    cameras: names of cameras the world shows
    trace: write a few rounds and an update as trace.json too, for chrome://tracing, by torch
    out: the folder, default RUN/profile or runs/<task>-profile
    model: of an agent, the model's keywords, such as model.size=1
    planner: the planner's keywords, such as planner.samples=256
    learner: of an agent, the learner's settings
    world: robot, control, split, senses, vary, reward: world.robot=panda

    umwelten profile task=reach agent=tdmpc2
    umwelten profile task=reach policy=expert n=64 threads=2
    umwelten profile run=runs/demo/train cameras=[front] trace=true
    """
    from rich.console import Console

    if rounds < 1 or n < 1 or warmup < 0 or updates < 0 or threads < 0:
        raise ConfigError("rounds and n are at least 1; warmup, updates and threads at least 0")
    whole, env, actor, name = _built(
        task, policy, run, agent, n, threads, seed, device, action_repeat, cameras,
        {"model": model or {}, "planner": planner or {}, "learner": learner or {}}, world or {},
    )  # fmt: skip
    folder = Path(out or (f"{run}/profile" if run else f"runs/{name}-profile"))
    folder.mkdir(parents=True, exist_ok=True)
    found = {"task": name, "policy": type(actor).__name__, "run": run, "rows": n}
    found |= {"rounds": rounds, "warmup": warmup, "seed": seed, "device": device}
    learns = actor if hasattr(actor, "update") else getattr(actor, "model", None)
    update = None
    if updates and getattr(learns, "window", 0):
        update = _updating(learns, whole, run, folder, seed)
    found |= _acting(env, actor, rounds, warmup, seed)
    found |= _learning(learns, update, updates, warmup)
    console = Console()
    if trace:
        console.print(_traced(folder / "trace.json", env, actor, learns, update, seed))
        console.print(f"wrote {folder / 'trace.json'}", soft_wrap=True, highlight=False)
    write(folder / "profile.json", found)
    console.print(table(found))
    console.print(*told(found), sep="\n", soft_wrap=True, highlight=False)
    console.print(f"wrote {folder / 'profile.json'}", soft_wrap=True, highlight=False)


def write(path: Path, found: dict) -> None:
    """Writes what was measured as JSON, with the machine and the versions it was measured on."""
    from .doctor import environment

    path.write_text(json.dumps(found | {"environment": environment()}, indent=1, allow_nan=False))


def _built(task, policy, run, agent, n, threads, seed, device, repeat, cameras, parts, world):
    """Returns the world of all that was learnt, that of the task, who acts, and the task's name."""
    import torch

    from . import build
    from .envs.sim import cpus

    if bool(policy or run) == bool(agent):
        raise ConfigError("say who acts: agent=NAME, or policy=NAME and, of a training, run=FOLDER")
    if not agent and (parts["model"] or parts["learner"]):
        raise ConfigError("model.KEY and learner.KEY are of an agent that has learnt nothing")
    torch.set_num_threads(threads or cpus())
    told = build.config_of(run) if run else {"task": task}
    name = task or told["task"]
    if not name or "+" in name:
        raise ConfigError(f"say of which task: run=FOLDER task=NAME, one alone, not {name!r}")
    policy = policy or (told.get("learner") or told.get("planner") or {}).get("name", "")
    simulated = bool(policy) and not run and policy not in ("random", "expert")
    options = build.world_of(run, repeat, cameras, world)
    options["world"] = {"nthread": threads, **options["world"]}
    whole = build.make_env(told["task"], n, physics=simulated, **options)
    env = build.alone(whole, name)
    if policy:
        actor = build.make_policy(policy, env, run, device, parts["planner"])
    elif parts["learner"]:
        actor = build.make_learner(parts["learner"], env, device=device, seed=seed)
    else:
        learnt = build.make_model(parts["model"], env, device, seed)
        actor = build.make_planner(parts["planner"], learnt)
    return whole, env, actor, name


class Stopwatch:
    """Times calls of methods from outside, in ms, a log for each stage; `laps` by iteration.

    device: what is waited for before and after a call; labelled: name the stages in a trace.
    """

    def __init__(self, device=None, labelled: bool = False):
        self.logs: dict[str, list[float]] = {}
        self.laps: list[list[float]] = []
        self._device, self._labelled = device, labelled

    def now(self) -> float:
        """Returns ms, once what was asked of the device is done."""
        if self._device is not None and self._device.type == "cuda":
            import torch

            torch.cuda.synchronize(self._device)
        return 1000 * perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time that the block takes to a stage's log."""
        with self._label(name):
            begin = self.now()
            yield
            self.logs.setdefault(name, []).append(self.now() - begin)

    @contextmanager
    def around(self, thing, method: str, name: str) -> Iterator[None]:
        """Times every call of an object's method as long as the block lasts."""
        call = getattr(thing, method)

        def timed(*given):
            with self.stage(name):
                return call(*given)

        with _replaced(thing, method, timed):
            yield

    @contextmanager
    def by_iteration(self, planner) -> Iterator[None]:
        """Times the iterations of a planner's plans, as its clock counts them."""
        plan = planner.plan

        def lapped(moment):
            self.laps.append([])
            return plan(moment._replace(clock=_Laps(moment.clock, self)))

        with _replaced(planner, "plan", lapped):
            yield

    def mark(self) -> dict[str, float]:
        """Returns the time logged so far, by stage."""
        return {name: sum(log) for name, log in self.logs.items()}

    def _label(self, name: str):
        if not self._labelled:
            return nullcontext()
        import torch

        return torch.profiler.record_function(name)


class _Laps:
    """A Clock that notes how long each of its iterations took."""

    def __init__(self, clock, watch: Stopwatch):
        self._clock, self._watch = clock, watch

    def iterations(self, count: int) -> Iterator[int]:
        before = self._watch.now()
        for i in self._clock.iterations(count):
            with self._watch._label(f"iteration {i}"):
                yield i
            now = self._watch.now()
            self._watch.laps[-1].append(now - before)
            before = now


@contextmanager
def _replaced(thing, method: str, by: Callable) -> Iterator[None]:
    mine = vars(thing).get(method)
    setattr(thing, method, by)
    try:
        yield
    finally:
        delattr(thing, method)  # the class's is there again
        if mine is not None:
            setattr(thing, method, mine)


@contextmanager
def _watched(watch: Stopwatch, env, actor) -> Iterator[None]:
    """Times what a loop of the actor in the world calls, as long as the block lasts."""
    model, camera = getattr(actor, "model", None), getattr(env, "_camera", None)
    with ExitStack() as stack:
        stack.enter_context(watch.around(env, "step", "world and camera"))
        if camera is not None:
            stack.enter_context(watch.around(camera, "render", "rendering"))
        stack.enter_context(watch.around(actor, "act", "decision"))
        if hasattr(model, "observe"):
            stack.enter_context(watch.around(model, "observe", "observation"))
        if hasattr(actor, "plan"):
            stack.enter_context(watch.by_iteration(actor))
            stack.enter_context(watch.around(actor, "plan", "planning"))
        yield


def _acting(env, actor, rounds: int, warmup: int, seed: int) -> dict:
    """Returns what the rounds took by stage, and what follows from it."""
    from .rollout import rollout
    from .score import HELD_OUT

    watch = Stopwatch(getattr(getattr(actor, "model", None), "device", None))
    loop, spent, decided = rollout(env, actor, HELD_OUT + seed), [], 0
    next(loop)  # the reset, which is no round
    with _watched(watch, env, actor):
        for i in range(warmup + rounds):
            before, kept = watch.mark(), len(watch.laps)
            with watch.stage("round"):
                step = next(loop)
            if i < warmup:
                del watch.laps[kept:]
                continue
            spent.append({k: v - before.get(k, 0.0) for k, v in watch.mark().items()})
            decided += int((~step["first"]).sum())
    logs = {k: np.array([s.get(k, 0.0) for s in spent]) for k in spent[0]}
    seconds, stages, period = logs["round"].sum() / 1000, _stages(logs), _period(env)
    latency = logs["decision"]
    found = {
        "stages": {k: _spread(v) | {"share": _share(v, logs)} for k, v in stages.items()},
        "control_period_ms": period, "control_latency_ms": _spread(latency),
        "late": float((latency > period).mean()),
        "env_steps_per_s": decided / seconds,
        "decisions_per_s": len(latency) / (latency.sum() / 1000),
        "real_time_factor": decided / env.num_envs * period / 1000 / seconds,
    }  # fmt: skip
    laps = watch.laps
    if laps and laps[0]:
        most = max(map(len, laps))
        found["iterations"] = {
            "per_decision": float(np.mean([*map(len, laps)])),
            "ms": [_spread(np.array([x[i] for x in laps if len(x) > i])) for i in range(most)],
        }
    return found


def _period(env) -> float:
    """Returns the ms of the world between two decisions."""
    task = env.worlds[0] if hasattr(env, "worlds") else env
    return 1000 * task.task.control_dt * task.action_repeat


def _stages(logs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the time of each round by stage: those that are part of none, and what is left."""
    found = dict(logs)
    for whole, parts in WITHIN.items():
        found[LEFT[whole]] = logs[whole] - sum(logs.get(p, 0.0) for p in parts)
    return {k: found[k] for k in STAGES if k in found}


def _spread(ms: np.ndarray) -> dict[str, float]:
    """Returns percentiles and mean of times in ms."""
    p50, p95, p99 = np.percentile(ms, [50, 95, 99]).tolist()
    return {"p50": p50, "p95": p95, "p99": p99, "mean": float(ms.mean())}


def _share(ms: np.ndarray, logs: dict[str, np.ndarray]) -> float:
    return float(ms.sum() / logs["round"].sum())


def _updating(model, env, run: str, folder: Path, seed: int) -> Callable[[Stopwatch], None]:
    """Returns what does an update on windows of the run, or of episodes recorded for it."""
    from . import build
    from .learn import replay_of
    from .mixture import Mixture

    paths = []
    if run:
        told = build.config_of(run)
        paths = [p for p in (*told["sources"], Path(run) / "episodes") if Path(p).is_dir()]
    paths = paths or [_recorded(folder / "episodes", env)]
    several = hasattr(env, "sides")
    data = Mixture(paths, env.sides, model.device) if several else replay_of(model, paths)
    rng = np.random.Generator(np.random.PCG64(seed))

    def update(watch: Stopwatch) -> None:
        with watch.stage("sampling"):
            batch = data.sample(rng, model.batch_size, model.window)
        with watch.stage("learning"):
            model.update(batch)

    return update


def _recorded(path: Path, env) -> Path:
    """Records a few episodes of random actions, where they are not there yet."""
    from .agents.policy import Random
    from .collect import one_each, seeds_there
    from .episodes import Recorder

    info = {"policy": "Random", "fingerprint": env.fingerprint}
    todo = sorted({*range(EPISODES)} - seeds_there(path, info))
    with Recorder(path, info) as recorder:
        for step in one_each(env, Random(env.single_action_space.shape[0]), todo):
            recorder.add(step)
    return path


def _learning(model, update, updates: int, warmup: int) -> dict:
    """Returns what the updates took by stage: sampling, gradients, optimisers."""
    if update is None:
        return {"updates_per_s": None}
    watch = Stopwatch(model.device)
    with _steps_watched(watch, model):
        for _ in range(warmup):
            update(watch)
        before = {k: len(log) for k, log in watch.logs.items()}
        for _ in range(updates):
            update(watch)
    logs = {k: np.array(log[before.get(k, 0) :]) for k, log in watch.logs.items()}
    optimiser = logs.get("optimiser", np.zeros(0)).reshape(updates, -1).sum(1)
    logs = {"sampling": logs["sampling"], "gradients": logs["learning"] - optimiser}
    logs |= {"optimiser": optimiser, "update": logs["sampling"] + logs["gradients"] + optimiser}
    total = logs["update"].sum()
    return {
        "updates": updates, "batch_size": model.batch_size, "window": model.window,
        "update": {k: _spread(v) | {"share": float(v.sum() / total)} for k, v in logs.items()},
        "updates_per_s": updates / (total / 1000),
    }  # fmt: skip


@contextmanager
def _steps_watched(watch: Stopwatch, model) -> Iterator[None]:
    """Times the steps of a model's optimisers as long as the block lasts."""
    import torch

    with ExitStack() as stack:
        for part in vars(model).values():
            if isinstance(part, torch.optim.Optimizer):
                stack.enter_context(watch.around(part, "step", "optimiser"))
        yield


def _traced(path: Path, env, actor, model, update, seed: int):
    """Writes a trace of a few rounds and an update; returns a table of what took most."""
    import torch

    from .rollout import rollout
    from .score import HELD_OUT

    watch, kinds = Stopwatch(None, labelled=True), torch.profiler.supported_activities()
    loop = rollout(env, actor, HELD_OUT + seed)
    next(loop)
    with _watched(watch, env, actor), torch.profiler.profile(activities=kinds) as found:
        for _ in range(TRACED):
            with watch.stage("round"):
                next(loop)
        if update is not None:
            with _steps_watched(watch, model):
                update(watch)
    found.export_chrome_trace(str(path))
    return _operators(found.key_averages())


def _operators(averages, most: int = 10):
    """Returns a rich table of the operators that took most, in themselves."""
    out = titled("operators in the trace", "name", "calls", "ms of CPU", "ms of CUDA")
    for a in sorted(averages, key=lambda a: -a.self_cpu_time_total)[:most]:
        times = (f"{t / 1000:.3f}" for t in (a.self_cpu_time_total, a.self_device_time_total))
        out.add_row(a.key, str(a.count), *times)
    return out


def table(found: dict):
    """Returns a rich table of the stages, a row each."""
    title = f"{found['policy']} on {found['task']}, {found['rows']} rows, ms"
    out = titled(title, "stage", "p50", "p95", "p99", "mean", "share")
    groups = [found["stages"], found.get("update", {})]
    for name, row in (pair for group in groups for pair in group.items()):
        cells = (f"{row[k]:.3f}" for k in ("p50", "p95", "p99", "mean"))
        out.add_row(name, *cells, f"{row['share']:.0%}")
    return out


def told(found: dict) -> list[str]:
    """Returns lines on latency beside the control period, rates, and iterations."""
    latency, rate = found["control_latency_ms"], found["updates_per_s"]
    lines = [
        f"control latency p50 {latency['p50']:.2f}, p95 {latency['p95']:.2f}, "
        f"p99 {latency['p99']:.2f} ms; the control period is {found['control_period_ms']:g} ms; "
        f"{found['late']:.1%} of decisions are late",
        f"{found['env_steps_per_s']:,.0f} env steps/s, {found['decisions_per_s']:,.1f} decisions/s"
        + (f", {rate:,.1f} updates/s" if rate else ""),
        f"{found['real_time_factor']:.3g} times real time, each row",
    ]
    if "iterations" in found:
        each = ", ".join(f"{lap['p50']:.2f}" for lap in found["iterations"]["ms"])
        lines.append(f"planning by iteration, p50: {each} ms")
    return lines
