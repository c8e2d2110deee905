"""Build: from the names of a command line or a run's config to worlds, learners and policies."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from . import checkpoint, config, registry


def make_env(
    task: str,
    n: int = 1,
    *,
    cameras: tuple = (),
    size: tuple[int, int] = (64, 64),
    labels: bool = False,
    physics: bool = False,
    action_repeat: int = 1,
    render_mode: str | None = None,
    autoreset_mode: str = "NextStep",
    world: Mapping | None = None,
):
    """Returns the BatchEnv of a task, or Several of `one+another`, n rows of each.

    Raises ConfigError where the arguments do not fit together.
    world: more of BatchEnv's keywords: robot, control, split, senses, vary, reward.
    """
    from .envs.env import BatchEnv
    from .envs.several import Several

    given = {k: _tuples(v) for k, v in (world or {}).items()}
    own = {
        "cameras": tuple(cameras), "size": size, "labels": labels, "physics": physics,
        "action_repeat": action_repeat, "render_mode": render_mode,
        "autoreset_mode": autoreset_mode,
    }  # fmt: skip
    config.check_kwargs(BatchEnv, given, "world")
    if twice := own.keys() & given.keys():
        raise config.ConfigError(f"{', '.join(sorted(twice))}: give it without the `world.`")
    with _refusing():
        worlds = [BatchEnv(name, n, **own, **given) for name in task_names(task)]
        return worlds[0] if len(worlds) == 1 else Several(worlds)


def task_names(task: str) -> list[str]:
    """Returns the class names of the tasks in `one+another`; UnknownName where one is not."""
    return [registry.find("envs", one).name for one in task.split("+")]


def names_of(env) -> list[str]:
    """Returns the class names of a world's tasks, in the order of their ids."""
    return [*env.names] if hasattr(env, "sides") else [type(env.task).__name__]


def alone(env, task: str):
    """Returns the world of one of the tasks, which is `env` itself where that is of one.

    Raises ConfigError for a task that is not among those of `env`.
    """
    if not hasattr(env, "sides"):
        return env
    (name,) = task_names(task)
    if name not in env.names:
        raise config.ConfigError(f"{task} is not among the tasks learnt: {', '.join(env.names)}")
    return env.alone(name)


def episode_lengths(env) -> list[int]:
    """Returns how many decisions an episode has, of each of a world's tasks."""
    if hasattr(env, "sides"):
        return [side.episode_length for side in env.sides]
    return [round(env.task.time_limit / env.task.control_dt / env.action_repeat)]


def _tuples(value):
    """Returns the value with tuples for its lists, as a command line cannot write them."""
    if isinstance(value, Mapping):
        return {k: _tuples(v) for k, v in value.items()}
    return tuple(_tuples(v) for v in value) if isinstance(value, list | tuple) else value


def pick_device(name: str):
    """Returns the torch device called auto, cpu or cuda (auto: cuda where there is one)."""
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise config.ConfigError(f"no device {name!r}; there are auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise config.ConfigError("no cuda device is at hand; use device=cpu or device=auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def make_model(model: Mapping, env, device: str = "cpu", seed: int = 0, share=None):
    """Returns the world model that `model` names, sized by the env's spaces.

    model: `name` and the keywords that differ from the signature; `simulator` plans in the truth.
    Its `parts` are named as `_parts` says, or are functions; they are rehearsed before.
    share: this process's of a batch, where several learn as one.
    """
    name = model.get("name", "tdmpc2")
    kind = registry.load("world_models", name)
    given = {k: v for k, v in model.items() if k != "name"}
    config.check_kwargs(kind, given, f"model {name}")
    if name == "simulator_model":
        with _refusing():
            return kind(env, **given)
    defaults = {"seed": seed, "device": pick_device(device)}
    if hasattr(env, "sides"):
        from .world_models.tasks import TaskSpec

        if "tasks" not in inspect.signature(kind).parameters:
            raise config.ConfigError(f"model {name} learns one task at a time; tdmpc2 learns many")
        defaults["tasks"] = [TaskSpec(s.name, s.nu, s.episode_length) for s in env.sides]
    else:
        (defaults["episode_length"],) = episode_lengths(env)
    space, nu = env.single_observation_space, env.single_action_space.shape[0]
    with _refusing():
        if given.get("parts") and hasattr(kind, "PARTS"):
            from .world_models.rehearsal import rehearse

            given["parts"] = parts = _parts(given["parts"], kind.PARTS)
            plain = defaults | {k: v for k, v in given.items() if k != "compile"}
            rehearse(lambda own: kind(space, nu, **plain | {"parts": own}), parts)
        made = kind(space, nu, **defaults | given)
        if share is not None:
            share.adopt(made)
        return made


def _parts(parts: object, places: Mapping[str, str]) -> dict:
    """Returns what makes the networks that a config names, by the place they are for.

    A name is the `package.module:name` that an installed package announces as an entry point of
    the group `umwelten.parts`: a config is anybody's, and what it names is imported only if its
    owner installed it for this. Raises ValueError for another name, and for what does not load.
    """
    if not isinstance(parts, Mapping):
        raise ValueError(f"parts={parts} is no place; write model.parts.PLACE=package.module:name")
    announced = [f"{m.module}:{m.attribute}" for m in registry.plugins("parts")]
    found = {}
    for place, told in parts.items():
        if place not in places:
            raise ValueError(f"no part {place!r}{registry.nearest(place, places)}")
        if callable(told):  # in Python
            found[place] = told
            continue
        module, _, name = str(told).partition(":")
        if not all(word.isidentifier() for word in (*module.split("."), name)):
            near = registry.nearest(str(told), announced)
            raise ValueError(f"the part {place}={told} is not as package.module:name{near}")
        if told not in announced:
            raise ValueError(
                f"no installed package announces {told} among its umwelten.parts"
                + registry.nearest(told, announced)
            )
        try:
            found[place] = getattr(importlib.import_module(module), name)
        except Exception as error:  # foreign code may raise anything; the cause stays attached
            raise ValueError(
                f"the part {place}={told} does not load: {type(error).__name__}: {error}"
            ) from error
        if not callable(found[place]):
            raise ValueError(f"the part {place}={told} cannot be called; name what makes a network")
    return found


def make_planner(planner: Mapping, model, explore: bool = False):
    """Returns the planner that `planner` names, over the model; the rest are its keywords.

    `limits` may be a mapping: the keywords of Limits. explore: as in collecting data, by its own
    `explore` where `planner` says none.
    """
    from .agents.limits import Limits

    name = planner.get("name", "mppi")
    kind = registry.load("agents", name)
    given = {k: v for k, v in planner.items() if k != "name"}
    config.check_kwargs(kind, given | {"model": model}, f"planner {name}")
    if explore:
        config.check_kwargs(kind, {"explore": True}, f"planner {name}")
        given.setdefault("explore", True)
    limits = given.get("limits")
    with _refusing():
        if isinstance(limits, Mapping):
            config.check_kwargs(Limits, limits, f"limits of planner {name}")
            given["limits"] = Limits(**limits)
        return kind(model, **given)


def calm(planner: Mapping) -> dict:
    """Returns what a planner is asked for without what it explores by, as where it is judged."""
    return {k: v for k, v in planner.items() if k != "explore"}


def make_learner(
    learner: Mapping,
    env,
    *,
    device: str = "cpu",
    seed: int = 0,
    n: int | None = None,
    updates: int = 0,
):
    """Returns the learner that `learner` names, over a world; the rest are its settings.

    n: rows it learns with, where it only acts in this world. updates: how many it will do, where
    that is known.
    """
    name = learner.get("name", "sac")
    kind = registry.load("agents", name)
    if not hasattr(kind, "checkpoint"):
        raise config.ConfigError(f"{name} does not learn by itself; learners are bc, ppo, sac, td3")
    given = {k: v for k, v in learner.items() if k != "name"}
    with _refusing():
        if not is_taught(learner):
            return kind(env, given, seed, pick_device(device), n)
        config.check_kwargs(kind, given, f"learner {name}")
        own = {"seed": seed, "device": pick_device(device), "cosine": updates}
        return kind(env.single_observation_space, env.single_action_space.shape[0], **own | given)


def is_taught(learner: Mapping) -> bool:
    """Whether a learner is given batches of recorded steps, rather than acting in a world."""
    return hasattr(registry.load("agents", learner.get("name", "sac")), "update")


@contextmanager
def _refusing() -> Iterator[None]:
    """Turns what a constructor refuses into a ConfigError."""
    try:
        yield
    except ValueError as error:
        raise config.ConfigError(str(error)) from error


def world_of(
    run: str | Path, action_repeat: int = 1, cameras: tuple = (), world: Mapping | None = None
) -> dict:
    """Returns `action_repeat`, `cameras` and `world` for make_env: a run's own, or those given.

    Cameras and keys of the world that are asked for come in addition to a run's, or in place of
    its own. Raises ConfigError if the folder holds no run.
    """
    given = dict(world or {})
    if run:
        told = config_of(run)
        action_repeat, given = told["action_repeat"], {**(told.get("world") or {}), **given}
        cameras = tuple(dict.fromkeys((*told["cameras"], *cameras)))
    return {"action_repeat": action_repeat, "cameras": tuple(cameras), "world": given}


def config_of(run: str | Path) -> dict:
    """Returns the config of a training run; ConfigError if the folder holds none."""
    path = Path(run)
    if not (path / "config.yaml").exists():
        raise config.ConfigError(f"{path} holds no run (no config.yaml); train one with out={path}")
    return config.load(path / "config.yaml")


def restore(run: str | Path, env, device: str = "cpu"):
    """Returns (model, config) of a training run, with the weights of its newest checkpoint.

    Raises ConfigError if the folder holds no run, no whole checkpoint, or one of another task or
    contract, or of a learner, which has no model.
    """
    told = config_of(run)
    if told.get("learner"):
        name = told["learner"].get("name")
        raise config.ConfigError(f"{run} was learnt by {name} without a model; use policy={name}")
    tensors, state = _saved(run, told, env)
    model = make_model(told["model"], env, device=device, seed=told["seed"])
    with _refusing():
        model.io_contract().require(state.get("contract"), run)
        model.restore(tensors)
    return model, told


def _saved(run: str | Path, told: Mapping, env) -> tuple[dict, dict]:
    """Returns tensors and state of a run's newest checkpoint, if it is of the world's task."""
    path = Path(run)
    found = checkpoint.latest(path / "checkpoints")
    if found is None:
        raise config.ConfigError(f"{path} has no whole checkpoint yet; go on training it")
    if task_names(told["task"]) != names_of(env):
        raise config.ConfigError(f"{path} learnt {told['task']}, not {'+'.join(names_of(env))}")
    tensors, _, state = checkpoint.load(found)
    return tensors, state


def make_policy(name: str, env, run: str = "", device: str = "cpu", planner: Mapping | None = None):
    """Returns the policy `name` for a world: random, expert, or a run's planner, prior or learner.

    Without a run a planner plans through the simulator itself, in a world of its own.
    """
    from .agents import policy

    if name == "random":
        return policy.Random(env.single_action_space.shape[0])
    if name == "expert":
        for world in getattr(env, "worlds", (env,)):
            if world.task.expert(world.sim) is None:
                name = type(world.task).__name__
                raise config.ConfigError(
                    f"{name} has no scripted expert; use policy=random or a planner"
                )
        return policy.Expert(env)
    if hasattr(registry.load("agents", name), "checkpoint"):
        return _learner_of(name, env, run, device, planner)
    given = {**(planner or {}), "name": name}
    if run:
        model, told = restore(run, env, device)
        if told.get("planner", {}).get("name") == name:
            given = {**calm(told["planner"]), **given}
        return make_planner(given, model)
    if name == "prior":
        raise config.ConfigError("policy=prior is a trained model's; say which with run=FOLDER")
    if hasattr(env, "sides"):
        raise config.ConfigError("the simulator plans for one task; give run=FOLDER, or one task=")
    truth = make_model({"name": "simulator_model"}, simulation(env))
    return make_planner(given, truth)


def _learner_of(name: str, env, run: str, device: str, planner: Mapping | None):
    """Returns a run's learner, with the weights of its newest checkpoint."""
    if not run:
        raise config.ConfigError(f"policy={name} has to have learnt; say where with run=FOLDER")
    if planner:
        raise config.ConfigError(f"policy={name} plans nothing; leave planner out")
    told = config_of(run)
    by = told.get("learner") or {"name": "a world model"}
    if name.lower() != by["name"].lower():
        raise config.ConfigError(f"{run} was learnt by {by['name']}, not by {name}")
    tensors, state = _saved(run, told, env)
    learner = make_learner(by, env, device=device, seed=told["seed"], n=told["n"])
    with _refusing():
        if is_taught(by):
            learner.io_contract().require(state.get("contract"), run)
        learner.restore(tensors)
    return learner


def simulation(env, rows: int = 256):
    """Returns a world like `env` for a planner to try actions in, `rows` at once."""
    from .envs.env import BatchEnv

    return BatchEnv(
        env.task, rows, vary=env.variation.ranges, action_repeat=env.action_repeat,
        max_episode_steps=-1,
    )  # fmt: skip
