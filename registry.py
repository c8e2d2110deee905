"""Registry: finds tasks, models, policies and robots by reading their files; it imports none.

The file is the registration: a public class in `envs/` whose bases lead to `Task` is a task. Only
`load` imports, and only what is asked for. Third parties join by entry points in the groups
`umwelten.envs`, `umwelten.world_models`, `umwelten.agents` and `umwelten.robots`; in
`umwelten.parts` they announce networks for the places of our models.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.metadata
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

PACKAGE = "umwelten"  # by its installed name, under whatever name this file itself was imported
ROOMS = {"envs": "task", "world_models": "model", "agents": "policy", "robots": "robot"}
# Of a module or a class: what is indented under the line, or closes its brackets, is its body.
_FUNCTION = re.compile(r"^( {0,4})def (\w+)\(.*\n(?:\1(?: +|\)).*\n|\n)*", re.MULTILINE)
_NOUNS = {"envs": ("Task",), "world_models": ("WorldModel",), "agents": ("Policy", "Learner")}


class UnknownName(LookupError):
    """No member has the name, or the plugin that has it cannot be used; one line that says so."""


@dataclass(frozen=True)
class Member:
    """Where a member lives, and what its file says of it in literals."""

    name: str  # as the class is called; a robot as its file is
    module: str
    attribute: str
    constants: Mapping[str, object]  # literal class attributes, those of bases in the room included
    about: str = ""  # first line of its docstring
    plugin: str = ""  # the third party's distribution, or "" for ours

    @property
    def snake(self) -> str:
        """The name as typed on a command line: `PickPlace` is `pick_place`."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", self.name).lower()


def members(room: str) -> Mapping[str, Member]:
    """Returns our members of a room ("envs", "world_models", "agents", "robots") by name.

    Raises ValueError if there is no such room, or if two members share a name.
    """
    if room not in ROOMS:
        raise ValueError(f"no room {room!r}; there are {', '.join(ROOMS)}")
    return _scan(Path(__file__).resolve().parent / room, f"{PACKAGE}.{room}")


def plugins(room: str) -> list[Member]:
    """Returns the members that installed third parties announce; imports none of them."""
    found = []
    for point in importlib.metadata.entry_points(group=f"{PACKAGE}.{room}"):
        module, _, attribute = point.value.partition(":")
        origin = point.dist.name if point.dist else point.group
        found.append(
            Member(point.name, module.strip(), attribute.strip(), MappingProxyType({}), "", origin)
        )
    return found


def find(room: str, name: str) -> Member:
    """Returns the member called `name`, in CamelCase or snake_case; ours come before plugins.

    Raises UnknownName with the nearest name.
    """
    ours = members(room)
    wanted = _plain(name)
    for member in ours.values():
        if _plain(member.name) == wanted:
            return member
    others = plugins(room)
    matches = [member for member in others if _plain(member.name) == wanted]
    if len(matches) == 1:
        return matches[0]
    if matches:
        rivals = " and ".join(member.plugin for member in matches)
        raise UnknownName(f"the {ROOMS[room]} {name!r} is claimed by {rivals}; uninstall one")
    names = [*ours, *(member.name for member in others)]
    if "_" in name or name.islower():
        names = [member.snake for member in (*ours.values(), *others)]
    raise UnknownName(f"no {ROOMS[room]} {name!r}{nearest(name, names)}")


def load(room: str, name: str):
    """Imports and returns the class called `name`; for a robot, its module.

    Raises UnknownName if there is none, or if a third party's cannot be imported.
    """
    member = find(room, name)
    if not member.plugin:
        module = importlib.import_module(member.module)
        return module if room == "robots" else getattr(module, member.attribute)
    try:
        module = importlib.import_module(member.module)
        value = getattr(module, member.attribute) if member.attribute else module
    except Exception as error:  # foreign code may raise anything; the cause stays attached
        raise UnknownName(
            f"the {ROOMS[room]} {member.name!r} of the plugin {member.plugin!r} does not load: "
            f"{type(error).__name__}: {error}"
        ) from error
    lineage = {base.__name__ for base in getattr(value, "__mro__", ())}
    if room in _NOUNS and not lineage & set(_NOUNS[room]):
        raise UnknownName(
            f"{member.name!r} of the plugin {member.plugin!r} is no {' or '.join(_NOUNS[room])}"
        )
    return value


def nearest(name: str, names) -> str:
    """Returns "; did you mean 'x'?" for the nearest of the names, or what there is to choose."""
    names = sorted(names)
    near = difflib.get_close_matches(name, names, 1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there are {', '.join(names)}" if names else "; there are none"


def gym_id(task: Member) -> str:
    """Returns a task's id with Gymnasium, `umwelten/<Name>-v<version>`."""
    return f"{PACKAGE}/{task.name}-v{task.constants.get('version', 0)}"


def register_gym() -> None:
    """Registers every task of ours with Gymnasium; a second call does nothing."""
    import gymnasium

    for member in members("envs").values():
        constants = member.constants
        if gym_id(member) in gymnasium.registry:
            continue
        missing = {"control_dt", "time_limit"} - constants.keys()
        if missing:
            raise ValueError(
                f"{member.module}.{member.name} needs {' and '.join(sorted(missing))} "
                "as literal class attributes, in s"
            )
        gymnasium.register(
            id=gym_id(member),
            entry_point=f"{PACKAGE}.envs.single:Env",
            vector_entry_point=f"{PACKAGE}.envs.env:BatchEnv",
            kwargs={"task": member.name},
            max_episode_steps=round(constants["time_limit"] / constants["control_dt"]),
        )


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


@lru_cache
def _scan(folder: Path, package: str) -> Mapping[str, Member]:
    """Reads the room's files; a class counts if it is public, concrete and descends from a noun."""
    room = package.rpartition(".")[2]
    trees = {
        path.stem: _outline(path.read_text("utf-8")) for path in sorted(folder.glob("[!_]*.py"))
    }
    nouns = _NOUNS.get(room)
    candidates = _classes(trees, package, nouns) if nouns else _robots(trees, package)
    seen: dict[str, Member] = {}
    for member in candidates:
        rival = seen.setdefault(_plain(member.name), member)
        if rival is not member:
            raise ValueError(
                f"two members of {room} are called {member.name!r}: in {rival.module} and in "
                f"{member.module}; rename one"
            )
    return MappingProxyType({member.name: member for member in candidates})


def _outline(source: str) -> ast.Module:
    """Returns a file's tree without what its functions do, which would take most of the time."""
    try:
        return ast.parse(_FUNCTION.sub(r"\1def \2(): ...\n", source))
    except SyntaxError:  # a line of a function that begins further left than the function does
        return ast.parse(source)


def _classes(trees: dict[str, ast.Module], package: str, nouns: tuple[str, ...]) -> list[Member]:
    listed = [
        (f"{package}.{stem}", node)
        for stem, tree in trees.items()
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    ]
    known = {node.name: node for _, node in listed}

    def ancestry(node: ast.ClassDef) -> list[str]:
        """Names of all bases, nearest first, as far as the room's files tell."""
        names = []
        for base in _bases(node):
            names.append(base)
            if base in known and base != node.name:
                names += ancestry(known[base])
        return names

    result = []
    for module, node in listed:
        bases = ancestry(node)
        if node.name.startswith("_") or _abstract(node) or not set(bases) & set(nouns):
            continue
        constants: dict[str, object] = {}
        for body in [known[b].body for b in reversed(bases) if b in known] + [node.body]:
            _read(body, constants)
        result.append(_member(node.name, module, node.name, constants, node))
    return result


def _robots(trees: dict[str, ast.Module], package: str) -> list[Member]:
    return [
        _member(stem, f"{package}.{stem}", "spec", _literals(tree.body), tree)
        for stem, tree in trees.items()
        if any(isinstance(node, ast.FunctionDef) and node.name == "spec" for node in tree.body)
    ]


def _member(name: str, module: str, attribute: str, constants: dict, node) -> Member:
    about = (ast.get_docstring(node) or "").partition("\n")[0]
    return Member(name, module, attribute, MappingProxyType(constants), about)


def _bases(node: ast.ClassDef) -> list[str]:
    return [b.attr if isinstance(b, ast.Attribute) else getattr(b, "id", "") for b in node.bases]


def _abstract(node: ast.ClassDef) -> bool:
    marks = [
        m for item in node.body if isinstance(item, ast.FunctionDef) for m in item.decorator_list
    ]
    names = {getattr(mark, "id", getattr(mark, "attr", "")) for mark in marks}
    return "ABC" in _bases(node) or bool(names & {"abstractmethod"})


def _literals(body: list[ast.stmt]) -> dict[str, object]:
    found: dict[str, object] = {}
    _read(body, found)
    return found


def _read(body: list[ast.stmt], constants: dict[str, object]) -> None:
    """Notes what a body assigns: a literal by its value; anything else only the class can tell."""
    for node in body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target = node.targets[0]
        elif isinstance(node, ast.AnnAssign | ast.AugAssign) and node.value is not None:
            target = node.target
        else:
            continue
        if isinstance(node, ast.AugAssign):
            constants.pop(getattr(target, "id", ""), None)
        elif isinstance(target, ast.Name):
            try:
                constants[target.id] = ast.literal_eval(node.value)
            except ValueError:
                constants.pop(target.id, None)
