"""The command line: finds the verb, checks what it is given, calls it; knows no verb's inside."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable

from . import __version__, config, registry

VERBS = {  # verb: the file beside this one that holds the function of that name
    "demo": "demo",
    "collect": "collect",
    "train": "train",
    "score": "score",
    "probe": "probe",
    "profile": "profiling",
    "verify": "verify",
    "play": "collect",
    "list": "cli",
    "doctor": "doctor",
}
ROOMS = {"tasks": "envs", "models": "world_models", "policies": "agents", "robots": "robots"}
LISTS = (*ROOMS, "parts", "agents", "configs")


def main(arguments: list[str] | None = None) -> int:
    """Runs a command line and returns its exit code: 0, 2 for a refusal, 130 for Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except (config.ConfigError, registry.UnknownName) as refusal:
        print(f"umwelten: {refusal}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\numwelten: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader has seen enough, as in `umwelten list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _run(arguments: list[str]) -> int:
    first = arguments[0] if arguments else "--help"
    if first in ("--version", "-V"):
        print(f"umwelten {__version__}")
        return 0
    if first in ("--help", "-h", "help"):
        print(overview())
        return 0
    function = verb(first)
    if {"--help", "-h"} & set(arguments[1:]):
        print(help_of(function))
        return 0
    values = config.compose(function, arguments[1:])
    bare = [values.pop(key.name) for key in config.schema(function).values() if key.bare]
    code = function(*bare, **values)
    return code if isinstance(code, int) else 0


def verb(name: str) -> Callable:
    """Returns the function of a verb; raises UnknownName with the nearest."""
    if name not in VERBS:
        raise registry.UnknownName(f"no verb {name!r}{registry.nearest(name, VERBS)}")
    module = importlib.import_module(f".{VERBS[name]}", __package__)
    return getattr(module, "list_" if name == "list" else name)


def overview() -> str:
    """Returns what the command can do, a line per verb."""
    width = max(map(len, VERBS))
    lines = [f"  {name:<{width}}  {_summary(verb(name))[0]}" for name in VERBS]
    return "\n".join(
        [
            f"umwelten {__version__}: worlds, episodes, world models and planners in one loop",
            "",
            "usage: umwelten VERB [key=value ...]",
            "",
            *lines,
            "",
            "umwelten VERB --help tells a verb's keys; umwelten list tells the names they take.",
        ]
    )


def help_of(function: Callable) -> str:
    """Returns a verb's purpose, its keys with types, defaults and meaning, and its examples."""
    summary, examples = _summary(function)
    keys = config.schema(function).values()
    name = function.__name__.rstrip("_")
    usage = "".join(f" [{key.name}]" for key in keys if key.bare)
    usage += "" if all(key.bare for key in keys) else " [key=value ...]"
    rows = [(key.name, _kind(key), key.about) for key in keys]
    wide = [max((len(row[i]) for row in rows), default=0) for i in (0, 1)]
    lines = [f"  {k:<{wide[0]}}  {kind:<{wide[1]}}  {about}".rstrip() for k, kind, about in rows]
    lines += [f"  {group}={'|'.join(names)}" for group, names in _presets(function).items()]
    return "\n".join(
        [f"usage: umwelten {name}{usage}", "", summary]
        + (["", "keys:", *lines] if lines else [])
        + ["", "examples:", *(f"  {example}" for example in examples)]
    )


def _presets(function: Callable) -> dict[str, list[str]]:
    """Returns the presets whose keys the verb takes, by group."""
    takes = config.schema(function).keys()
    names = {group: config.recipes().get(group, []) for group in config.PRESETS}
    fitting = {g: [n for n in names[g] if config.recipe_keys(g, n) <= takes] for g in names}
    return {group: names for group, names in fitting.items() if names}


def _kind(key: config.Key) -> str:
    kind = {"tuple": "list", "dict": "keys"}.get(key.kind.__name__, key.kind.__name__)
    if key.required:
        return f"{kind}, needed"
    words = {"()": "[]", "''": "''", "None": "null", "True": "true", "False": "false"}
    shown = words.get(repr(key.default), key.default) if key.kind is not dict else ""
    return f"{kind} = {shown}" if shown != "" else kind


def _summary(function: Callable) -> tuple[str, list[str]]:
    """Returns the docstring's first paragraph on one line, and its lines that show a command."""
    lines = (inspect.getdoc(function) or "").splitlines()
    first = " ".join(lines[: lines.index("")] if "" in lines else lines)
    return first, [line.strip() for line in lines if line.strip().startswith("umwelten ")]


def list_(what: str = "", /) -> None:
    """Lists what there is to name, and the files to learn from.

    what: tasks, models, policies, robots, parts (places in models, as model.parts.PLACE=..., and
        the networks that packages announce for them), agents or configs; all where nothing is said

    umwelten list
    umwelten list tasks
    """
    from rich.console import Console
    from rich.table import Table

    if what and what not in LISTS:
        raise config.ConfigError(f"no list {what!r}{registry.nearest(what, LISTS)}")
    console = Console()
    for title in [what] if what else LISTS:
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        table.add_column("name", style="bold", no_wrap=True)
        place = "place" if title == "parts" else "file"
        table.add_column("in Python" if title in ROOMS else place, overflow="fold")
        table.add_column("is", overflow="fold")
        if title == "models":
            table.add_column("tier: evidence", overflow="fold")
        for row in _rows(title):
            table.add_row(*row)
        if table.row_count:
            console.print(table, "")


def _rows(title: str) -> list[tuple[str, ...]]:
    if title == "parts":
        models = registry.members("world_models").values()
        places = [(m.snake, m.constants.get("PARTS", {})) for m in models]
        rows = [(model, *place) for model, parts in places for place in parts.items()]
        theirs = registry.plugins("parts")
        return rows + [(m.snake, f"{m.module}:{m.attribute}", f"from {m.plugin}") for m in theirs]
    return _member_rows(ROOMS[title]) if title in ROOMS else _recipe_rows(title)


def _member_rows(room: str) -> list[tuple[str, ...]]:
    ours = registry.members(room).values()
    places = [registry.gym_id(m) if room == "envs" else f"{m.module}:{m.attribute}" for m in ours]
    rows = [(m.snake, place, m.about) for m, place in zip(ours, places, strict=True)]
    theirs = registry.plugins(room)
    rows += [(m.snake, f"{m.module}:{m.attribute}", f"from {m.plugin}") for m in theirs]
    if room != "world_models":
        return rows
    from .tiers import tier

    return [(*row, ": ".join(tier(row[0]))) for row in rows]


def _recipe_rows(title: str) -> list[tuple[str, str, str]]:
    """Returns (group=name, file, what its first comment says), of the agents or of the rest."""
    rows = []
    for group, names in config.recipes().items():
        for name in names if (group == "agent") == (title == "agents") else ():
            path = config.RECIPES / group / f"{name}.yaml"
            comments = [line[2:] for line in path.read_text().splitlines() if line[:2] == "# "]
            about = [comment for comment in comments if not comment.startswith("@")]
            rows.append((f"{group}={name}", f"configs/{group}/{name}.yaml", *about[:1]))
    return rows
