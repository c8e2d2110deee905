"""Recorded: what a learner of recorded steps may learn from, held to the world that it is for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from . import registry
from .config import ConfigError


def demonstrations(sources: Sequence[str], told: Mapping, env, learner):
    """Returns the Episodes of the folders, with what the learner and its loop read.

    told: a training's config. Raises ConfigError where there are none, or where a folder is of
    another task, body, control or pace than the world `env`, or lacks what the learner reads.
    """
    from .episodes import Episodes
    from .learn import ALWAYS

    if not sources:
        raise ConfigError("this agent learns from recorded episodes alone; give sources=[FOLDER]")
    for source in sources:
        if not Path(source).is_dir():
            raise ConfigError(f"no folder {source} to learn from; collect episodes into it")
    try:
        for source in sources:
            _check(source, Episodes(source, ("time",)), told["world"], env)
        keys = tuple(dict.fromkeys((*learner.keys, *ALWAYS)))
        found = Episodes([*sources], keys, across=getattr(learner, "across", False))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if not found.count(learner.window):
        raise ConfigError(
            f"{', '.join(sources)}: {len(found)} episodes, no {learner.window} valid steps in a "
            "row; collect more into it, or learn shorter windows"
        )
    return found


def _check(source: str, episodes, world: Mapping, env) -> None:
    """Raises ConfigError if a folder's episodes are not of a world like `env`."""
    info, name = episodes.info, type(env.task).__name__
    recorded = info.get("task")
    if recorded and registry.find("envs", recorded).name != name:
        raise ConfigError(f"{source} holds episodes of {recorded}, not of {name}")
    if not recorded and info.get("fingerprint", env.fingerprint) != env.fingerprint:
        raise ConfigError(f"{source} holds episodes of another world than {name} as it is here")
    theirs, ours = (_body(w or {}, env.task) for w in (info.get("world"), world))
    for key, value in ours.items():
        if theirs[key] != value:
            raise ConfigError(
                f"{source} holds episodes of {key}={theirs[key]}, not of {value}; train with "
                f"world.{key}={theirs[key]}, or collect anew"
            )
    if not len(episodes):
        return
    times = episodes.episode(0)["time"][:2]
    took, takes = float(times[-1] - times[0]), env.task.control_dt * env.action_repeat
    if len(times) > 1 and abs(took - takes) > 1e-6:
        raise ConfigError(
            f"a decision in {source} lasts {took:g} s, here {takes:g} s; train with action_repeat="
            f"{max(1, round(took / env.task.control_dt))}, or collect anew"
        )


def _body(world: Mapping, task) -> dict[str, str]:
    """Returns the arm and the control that a world's keywords choose, where there is a choice."""
    if not task.robots:
        return {}
    robot, control = world.get("robot"), world.get("control")
    return {"robot": robot or task.robots[0], "control": control or task.default_control}
