"""Train: the verb; a task, an agent and a folder, and the run in it that a stranger can read."""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path

FREE = ("steps", "device", "evaluate_every", "episodes", "save_every")  # to change on the way


def train(
    task: str,
    agent: str = "tdmpc2",
    out: str = "",
    steps: int = 50_000,
    n: int = 1,
    action_repeat: int = 1,
    seed: int = 0,
    device: str = "auto",
    threads: int = 0,
    sources: tuple = (),
    offline: bool = False,
    ratio: float = 1.0,
    seed_steps: int = -1,
    pretrain: int = -1,
    evaluate_every: int = 10_000,
    episodes: int = 10,
    save_every: int = 5000,
    cameras: tuple = (),
    model: dict | None = None,
    planner: dict | None = None,
    learner: dict | None = None,
    world: dict | None = None,
    launcher: str = "local",
    collectors: int = 2,
) -> int:
    """Trains an agent on a task, online (acting and learning) or offline from recorded episodes.

    The run's folder holds config, versions, metrics, checkpoints and episodes; the same command
    goes on where it stopped, and may then say another steps, device, evaluate_every, episodes or
    save_every.

    task: what is asked, as `umwelten list tasks` says; of several, one+another
    agent: a whole agent, as `umwelten list agents` says: a model, its planner and its prior, or a
        learner with a loop of its own
    out: the run's folder, default runs/<task>-<agent>-<seed>
    steps: decisions to take (offline: updates to do)
    n: rows that act at a time, of each task
    action_repeat: control steps that an action lasts; their rewards are summed
    seed: of everything drawn
    device: auto, cpu or cuda
    threads: of torch; 0 for all of this process's processors
    sources: folders of recorded episodes to learn from as well
    offline: learn from the sources alone
    ratio: updates for a decision
    seed_steps: decisions taken at random first, default five episodes and at least 1000
    pretrain: updates done at once after those, default as many
    evaluate_every: decisions (offline: updates) between two scores
    episodes: of a score
    save_every: updates (of a learner: decisions) between two checkpoints
    cameras: names of cameras the world shows
    model: the model's name and keywords, such as model.size=1, and model.parts.PLACE=MODULE:NAME,
        an announced network in a place that `umwelten list parts` names
    planner: the planner's name and keywords, such as planner.samples=256
    learner: the learner's name and its (SB3's) keywords, such as learner.learning_rate=1e-4, and
        learner.keys=[...], what it observes
    world: robot, control, split, senses, vary, reward: world.vary=[mass,friction] world.split=train
    launcher: local, or ray: the n rows are acted in by processes of their own
    collectors: with launcher=ray, how many processes act in equal parts of the rows

    umwelten train task=cartpole_swingup agent=tdmpc2 action_repeat=2
    umwelten train task=cartpole_balance+cup_catch agent=tdmpc2 action_repeat=2
    umwelten train task=reach agent=sac steps=20000 save_every=10000
    umwelten train task=reach sources=[runs/reach-expert] offline=true model.size=1 steps=5000
    umwelten train task=push agent=bc sources=[runs/push-expert] steps=5000
    """
    told = {k: v for k, v in locals().items() if k not in ("out", "threads")}
    if launcher == "local":  # then a run's config says nothing of it
        told = {k: v for k, v in told.items() if k not in ("launcher", "collectors")}
    from rich.console import Console

    from .config import ConfigError, at_least
    from .learn import NotFinite
    from .parallel import Share
    from .world_models.contract import ContractError

    at_least(1, steps=steps, n=n, action_repeat=action_repeat, episodes=episodes)
    at_least(1, save_every=save_every, collectors=collectors)
    at_least(0, seed=seed, ratio=ratio, evaluate_every=evaluate_every, threads=threads)
    at_least(-1, seed_steps=seed_steps, pretrain=pretrain)
    folder = Path(out or f"runs/{task}-{agent}-{seed}")
    told |= {k: dict(told[k] or {}) for k in ("model", "planner", "learner", "world")}
    console = Console()
    share = Share.join(device)
    if not share.leads:
        _follow(told, threads, share)
        return 0
    try:
        with open_run(folder, told) as run, bar(console, steps, offline) as watch:
            summary = run_training(run, told, threads, watch, share)
    except NotFinite as error:
        console.print(f"stopped: {error}", soft_wrap=True, markup=False)
        return 1
    except ContractError as refusal:
        raise ConfigError(str(refusal)) from refusal
    done = f"{summary['updates']} updates, {summary['env_steps']} decisions: {folder}"
    console.print(done, soft_wrap=True, markup=False)
    return 0


def run_training(run, told: dict, threads: int = 0, watch=None, share=None) -> dict:
    """Trains as the config `told` says, in an open Run; returns where it stands at the end.

    share: this process's of a batch, where it leads others that learn with it.
    The config is the run's once everything that it names could be built. Raises ConfigError for
    what cannot be, and learn.NotFinite.
    """
    import torch

    from . import build, card, config, learn
    from .agents.policy import Warmup

    torch.set_num_threads(threads or _cpus())
    keep_memory()
    if told.get("learner"):
        return _run_learner(run, told, watch)
    if told["offline"] and not told["sources"]:
        raise config.ConfigError("offline=true learns from sources alone; give sources=[FOLDER]")
    for source in told["sources"]:
        if not Path(source).is_dir():
            raise config.ConfigError(f"no folder {source} to learn from; collect episodes into it")
    options = {k: told[k] for k in ("action_repeat", "cameras", "world")}
    env = build.make_env(told["task"], told["n"], **options)
    model = _model(told, env, share)
    lengths = build.episode_lengths(env)
    if not told["offline"] and model.window > max(lengths) + 1:
        raise config.ConfigError(
            f"the model learns from {model.window} steps at once, an episode of {told['task']} has "
            f"{max(lengths) + 1} at most; choose a shorter model.horizon"
        )
    warm = max(1000, 5 * sum(lengths))
    warm = told["seed_steps"] if told["seed_steps"] >= 0 else warm
    actor = build.make_planner(told["planner"], model, explore=True)
    if warm:
        actor = Warmup(actor, env.single_action_space.shape[0], -(-warm // env.num_envs))
    judged = build.make_planner(build.calm(told["planner"]), model)
    evaluate = _scorer(told, judged, options)
    act = _launcher(told, env, model, -(-warm // env.num_envs))
    config.save(run.path / "config.yaml", told)
    progress = learn.train(
        model, run, sources=told["sources"], env=None if told["offline"] else env,
        policy=None if told["offline"] else actor, steps=told["steps"], ratio=told["ratio"],
        seed=told["seed"], seed_steps=warm,
        pretrain=told["pretrain"] if told["pretrain"] >= 0 else warm,
        save_every=told["save_every"], evaluate_every=told["evaluate_every"],
        evaluate=evaluate, watch=watch, read=_reader(env, model.device), act=act,
    )  # fmt: skip
    card.write(run.path, told, env, progress, run.metrics())
    return {"updates": progress.updates, "env_steps": progress.env_steps}


def _launcher(told: dict, env, model, warm: int):
    """Returns who acts: `rollout` here, or a Fleet elsewhere."""
    from . import build, config
    from .rollout import rollout

    name = told.get("launcher", "local")
    if name == "local":
        return rollout
    if name != "ray":
        raise config.ConfigError(f"no launcher {name!r}; there are local, ray")
    if told["offline"] or len(build.task_names(told["task"])) > 1:
        raise config.ConfigError("launcher=ray acts in one task; use launcher=local for this")
    from .fleet import Fleet

    return lambda env, policy, seeds: Fleet(told, model, seeds, told["collectors"], warm)


def _reader(env, device):
    """Returns how folders are read for a world of several tasks, None for one of one."""
    from .mixture import Mixture

    return (lambda paths: Mixture(paths, env.sides, device)) if hasattr(env, "sides") else None


def _run_learner(run, told: dict, watch) -> dict:
    """Does what `run_training` does where the config names a learner, in that learner's loop."""
    from gymnasium.vector import AutoresetMode

    from . import build, card, config, hosted

    if build.is_taught(told["learner"]):
        return _run_taught(run, told, watch)
    own = f"{told['learner'].get('name')} has a loop of its own, whose keys are learner.KEY=..."
    keys = ("model", "planner", "sources", "offline", "ratio", "seed_steps", "pretrain")
    _refuse(told, keys, f"is for world models; {own}")
    options = {k: told[k] for k in ("action_repeat", "cameras", "world")}
    mode = AutoresetMode.SAME_STEP
    env = build.make_env(told["task"], told["n"], autoreset_mode=mode, **options)
    learner = build.make_learner(told["learner"], env, device=told["device"], seed=told["seed"])
    evaluate = _scorer(told, learner, options)
    config.save(run.path / "config.yaml", told)
    progress = hosted.train(
        learner, run, steps=told["steps"], save_every=told["save_every"], evaluate=evaluate,
        evaluate_every=told["evaluate_every"], watch=watch,
    )  # fmt: skip
    card.write(run.path, told, env, progress, run.metrics())
    return {"updates": progress.updates, "env_steps": progress.env_steps}


def _run_taught(run, told: dict, watch) -> dict:
    """Does what `run_training` does where the config names a learner of recorded steps."""
    from . import build, card, config, learn, recorded
    from .replay import Replay

    keys = ("model", "planner", "n", "ratio", "seed_steps", "pretrain")
    name = told["learner"].get("name")
    _refuse(told, keys, f"is for who acts as it learns; {name} has learner.KEY=...")
    if not told["offline"]:
        raise config.ConfigError(f"{name} learns from recorded episodes alone; leave offline=true")
    options = {k: told[k] for k in ("action_repeat", "cameras", "world")}
    env = build.make_env(told["task"], 1, **options)
    learner = build.make_learner(
        told["learner"], env, device=told["device"], seed=told["seed"], updates=told["steps"]
    )
    episodes = recorded.demonstrations(told["sources"], told, env, learner)
    learner.fit(episodes.stats()["keys"])
    evaluate = _scorer(told, learner, options)
    config.save(run.path / "config.yaml", told)
    progress = learn.train(
        learner, run, sources=told["sources"], steps=told["steps"], seed=told["seed"],
        save_every=told["save_every"], evaluate=evaluate, evaluate_every=told["evaluate_every"],
        watch=watch, read=lambda paths: Replay(episodes, learner.device),
    )  # fmt: skip
    card.write(run.path, told, env, progress, run.metrics())
    return {"updates": progress.updates, "env_steps": progress.env_steps}


def _refuse(told: dict, keys: tuple, why: str) -> None:
    """Raises ConfigError if a key was given that is nothing to a learner, or more than one task."""
    from . import build, config

    usual = config.schema(train)
    for key in keys:
        if (told[key] or None) != (usual[key].default or None):
            raise config.ConfigError(f"{key} {why}")
    if "launcher" in told:
        raise config.ConfigError("launcher=ray is for world models, not for learners")
    if len(build.task_names(told["task"])) > 1:
        raise config.ConfigError(f"{told['agent']} learns one task at a time; tdmpc2 learns many")


def _follow(told: dict, threads: int, share) -> None:
    """Learns from what the leading process hands out, with a model like its own."""
    import torch

    from . import build, config, learn

    if told.get("learner"):
        raise config.ConfigError("learners learn in one process; start this without torchrun")
    torch.set_num_threads(threads or _cpus())
    keep_memory()
    options = {k: told[k] for k in ("action_repeat", "cameras", "world")}
    learn.follow(_model(told, build.make_env(told["task"], 1, **options), share))


def _model(told: dict, env, share):
    from . import build

    return build.make_model(told["model"], env, told["device"], told["seed"], share)


def keep_memory() -> None:
    """Lets this process keep memory that it frees, on Linux; no result depends on it.

    To give back and ask anew for what each update needs costs DreamerV3 a tenth of its time.
    """
    allocator = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if allocator is not None:
        trim, alone = -1, -3  # glibc's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD
        allocator(trim, 2**31 - 1)
        allocator(alone, 2**28)


def _cpus() -> int:
    """Returns how many processors are this process's, of those that torchrun started here."""
    from .envs.sim import cpus

    return max(1, cpus() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def _scorer(told: dict, policy, options: dict):
    from . import build
    from .score import judge_each, numbers, rows_for

    if not told["evaluate_every"]:
        return None
    env = build.make_env(told["task"], rows_for(told["episodes"], 10), **options)

    def evaluate(progress) -> dict:
        return numbers(judge_each(env, policy, told["episodes"]))

    return evaluate


def open_run(folder: Path, told: dict):
    """Opens the run, new or with the same config; a file says with which versions it was made."""
    from . import config
    from .doctor import environment
    from .run import Run

    path = folder / "config.yaml"
    if path.exists():
        other = [k for k in differing(config.load(path), told) if k not in FREE]
        if other:
            raise config.ConfigError(
                f"{folder} was trained with another {', '.join(other)}; choose another out="
            )
    try:
        run = Run(folder)
    except RuntimeError as error:
        raise config.ConfigError(str(error)) from error
    with (folder / "environment.jsonl").open("a") as file:  # a line for each time it was opened
        file.write(json.dumps(environment()) + "\n")
    return run


def differing(one: Mapping, two: Mapping) -> list[str]:
    """Returns the keys by which the configs of two trainings differ, in the verb's order."""
    from . import config

    usual = {key.name: key.default for key in config.schema(train).values()}  # of younger keys
    one, two = ({**usual, **json.loads(json.dumps(told, default=str))} for told in (one, two))
    return [k for k in usual if one[k] != two[k] and (one[k] or two[k])]


@contextmanager
def bar(console, steps: int, offline: bool):
    """Gives a watcher that keeps one line up to date as long as the block lasts."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    line = Progress(
        TextColumn("training"), BarColumn(), TextColumn("{task.fields[at]}"), TimeRemainingColumn(),
        console=console,
    )  # fmt: skip
    task = line.add_task("", total=steps, at="")

    def watch(progress, metrics: dict) -> None:
        done = progress.updates if offline else progress.env_steps
        at = f"{progress.env_steps} decisions, {progress.updates} updates"
        line.update(task, completed=done, at=at)

    with line:
        yield watch
