"""Config: a verb's signature is its schema, a yaml is a recipe; composed by hydra, never executed.

It knows signatures and recipes, not what a verb does.
"""

from __future__ import annotations

import inspect
import os
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from . import registry

ROOT = Path(__file__).resolve().parent
RECIPES = ROOT / "configs"
SEVERAL = ("train", "score")  # verbs that take task=one+another
PRESETS = ("experiment",)  # groups of recipes for which a verb needs no key of that name
NAMES = {"task": "envs", "robot": "robots", "model.name": "world_models"}
NAMES |= {"planner.name": "agents", "learner.name": "agents"}
PLAIN = frozenset(("int", "float", "bool", "str", "None"))  # types whose values are looked at


class ConfigError(ValueError):
    """What was asked for cannot be: one line with what is allowed."""


def at_least(low: float, **given: float) -> None:
    """Raises ConfigError unless each of the keys given is `low` or more."""
    for name, value in given.items():
        if not value >= low:
            raise ConfigError(f"{name}={value} is below {low}; choose at least {low}")


@dataclass(frozen=True)
class Key:
    """One parameter of a verb: its type (a builtin), default and line of documentation."""

    name: str
    kind: type
    default: object = inspect.Parameter.empty
    optional: bool = False  # takes null
    bare: bool = False  # given as a bare word
    about: str = ""

    @property
    def required(self) -> bool:
        """Whether the verb cannot go without it."""
        return self.default is inspect.Parameter.empty


def schema(function: Callable) -> dict[str, Key]:
    """Returns the keys of a verb, read from its signature and the `name: text` lines of its doc.

    Raises TypeError if a parameter is not int, float, str, bool, tuple or dict, or one of these
    or None: a command line could not give it.
    """
    hints = typing.get_type_hints(function)
    about = dict(_documented(function))
    keys = {}
    for name, parameter in inspect.signature(function).parameters.items():
        hint = hints.get(name)
        choices = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        kinds = [typing.get_origin(c) or c for c in choices if c is not types.NoneType]
        if len(kinds) != 1 or kinds[0] not in (int, float, str, bool, tuple, dict):
            raise TypeError(f"{function.__name__}: no command line can give {name}: {hint}")
        keys[name] = Key(
            name,
            kinds[0],
            parameter.default,
            types.NoneType in choices or parameter.default is None,
            parameter.kind is parameter.POSITIONAL_ONLY,
            about.get(name, ""),
        )
    return keys


def _documented(function: Callable) -> list[tuple[str, str]]:
    """Returns (parameter, text) for each line `parameter: text`, what is indented below joined."""
    found: list[tuple[str, str]] = []
    names = inspect.signature(function).parameters
    open_indent = None
    for line in (inspect.getdoc(function) or "").splitlines():
        match = re.match(r"(\s*)(\w+): (.+)", line)
        indent = len(line) - len(line.lstrip())
        if match and match[2] in names:
            found.append((match[2], match[3]))
            open_indent = len(match[1])
        elif open_indent is not None and line.strip() and indent > open_indent:
            found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip()}")
        else:
            open_indent = None
    return found


def recipes() -> dict[str, list[str]]:
    """Returns the recipes that `group=name` applies, by group."""
    groups = sorted(
        path for path in RECIPES.iterdir() if path.is_dir() and path.name[0] not in "._"
    )
    return {group.name: sorted(path.stem for path in group.glob("*.yaml")) for group in groups}


def recipe_keys(group: str, name: str) -> set[str]:
    """Returns the keys that a recipe sets."""
    return load(RECIPES / group / f"{name}.yaml").keys() - {"defaults"}


def compose(function: Callable, arguments: list[str]) -> dict[str, object]:
    """Returns the verb's arguments: its defaults, then the recipes, then `key=value`.

    What an agent's recipe says beyond the verb's keys, as of its training, is left out. Raises
    ConfigError for an unknown key, a wrong type, a missing value or a key that begins with
    an underscore, and registry.UnknownName for the name of no member or recipe; all before
    anything heavy is imported.
    """
    keys = schema(function)
    verb = function.__name__.rstrip("_")
    given = _parse(verb, keys, arguments)
    config = _merge(verb, keys, given)
    agent = config.get("agent")
    known = agent in recipes().get("agent", [])
    spare = recipe_keys("agent", agent) if known else set()  # is for verbs that train
    for name in config.keys() - keys.keys() - spare:
        raise ConfigError(f"a recipe sets {name!r}, which {verb} does not take")
    for key in keys.values():
        if key.required and key.name not in config:
            room = NAMES.get(key.name)
            choice = registry.nearest("", [m.snake for m in registry.members(room).values()])
            raise ConfigError(f"{verb} needs {key.name}=...{choice if room else ''}")
        config[key.name] = _typed(verb, key, config[key.name])
    _check_names(verb, config)
    return {name: config[name] for name in keys}


def _parse(verb: str, keys: dict[str, Key], arguments: list[str]) -> list[tuple[str, object]]:
    """Returns (dotted key, value) of each argument, in hydra's grammar."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import OverrideType
    from hydra.errors import HydraException

    bare = [key.name for key in keys.values() if key.bare]
    parser = OverridesParser.create()
    given = []
    for argument in arguments:
        if "=" not in argument and bare and not argument.startswith("-"):
            given.append((bare.pop(0), argument))
            continue
        if not re.match(r"[A-Za-z_]", argument) or "=" not in argument:
            raise ConfigError(f"cannot read {argument!r}; write key=value, as in seed=1")
        name, _, text = argument.partition("=")
        head = name.split(".")[0]
        if head not in keys and name not in PRESETS:
            raise ConfigError(
                f"no key {name!r} for {verb}{registry.nearest(head, [*keys, *PRESETS])}"
            )
        if head in keys and "." in name and keys[head].kind is not dict:
            raise ConfigError(f"{head!r} of {verb} is no group of keys; write {head}=...")
        try:
            override = parser.parse_override(argument)
            value = override.value()
        except HydraException as error:
            raise ConfigError(f"cannot read {argument!r}; quote it: {name}='...'") from error
        if override.type is not OverrideType.CHANGE or override.is_sweep_override():
            raise ConfigError(f"{argument!r} is a sweep; one value only, or a list: {name}=[a,b]")
        if head == name and name in keys and keys[name].kind is str and value is not None:
            value = value if isinstance(value, str) else text  # out=1.10 is a name, no number
        given.append((name, value))
    return given


def _merge(verb: str, keys: dict[str, Key], given: list[tuple[str, object]]) -> dict[str, object]:
    """Lays recipes over the defaults, and the given values over both."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    groups = recipes()
    defaults = {key.name: key.default for key in keys.values() if not key.required}
    start = {group: defaults.get(group) for group in groups}
    choice = [{g: name if name in groups[g] else None} for g, name in start.items()]
    ConfigStore.instance().store(name=verb, node={"defaults": ["_self_", *choice], **defaults})
    chosen = [(g, v) for g, v in given if g in groups and v in groups[g]]
    for group, value in given:
        if group in PRESETS and (group, value) not in chosen:
            near = registry.nearest(str(value), groups.get(group, []))
            raise registry.UnknownName(f"no recipe {group}={value}{near}")
    try:
        with initialize_config_dir(str(RECIPES), job_name=verb, version_base="1.3"):
            config = hydra_compose(verb, [f"{group}={value}" for group, value in chosen])
        OmegaConf.set_struct(config, False)
        for name, value in given:
            if (name, value) not in chosen:
                OmegaConf.update(config, name, value)
        _refuse(OmegaConf.to_container(config))
        return typing.cast(dict, OmegaConf.to_container(config, resolve=True))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"cannot compose {verb}: {str(error).splitlines()[0]}") from error


def _refuse(config: object, path: str = "") -> None:
    """Raises ConfigError for what makes a config act: `_target_` and its kin, resolvers."""
    if isinstance(config, str) and re.search(r"\$\{[^}]*:", config):
        raise ConfigError(f"{path}={config} is refused: a config reads nothing but itself")
    for name, value in config.items() if isinstance(config, Mapping) else ():
        if str(name).startswith("_"):
            raise ConfigError(
                f"the key {f'{path}.{name}'.lstrip('.')!r} is refused: a config executes nothing"
            )
        _refuse(value, f"{path}.{name}" if path else str(name))
    for value in config if isinstance(config, list) else ():
        _refuse(value, path)


def _typed(verb: str, key: Key, value: object) -> object:
    """Returns the value as the key's type; 1e5 is an int where it is whole, 1 is a float."""
    if value is None and key.optional:
        return None
    if key.kind is float and type(value) is int:
        return float(value)
    if key.kind is int and type(value) is float and value.is_integer():
        return int(value)
    if key.kind is tuple and isinstance(value, list | tuple):
        return tuple(value)
    if type(value) is key.kind and value == value:
        return value
    wanted = {tuple: "a list, as in [a,b]", dict: f"keys, as in {key.name}.name=..."}
    kind = wanted.get(key.kind, key.kind.__name__)
    shown = "null" if value is None else value
    raise ConfigError(f"{key.name}={shown} of {verb} must be {kind}")


def _check_names(verb: str, config: Mapping[str, object]) -> None:
    """Looks every name up before anything is built."""
    for name, room in NAMES.items():
        head, _, rest = name.partition(".")
        value = config.get(head)
        value = value.get(rest) if rest and isinstance(value, Mapping) else value
        if isinstance(value, str) and value:
            several = value.split("+") if name == "task" else [value]
            for one in several:
                registry.find(room, one)
            if len(several) > 1 and verb not in SEVERAL:
                raise ConfigError(f"{verb} takes one task, not {value}; {', '.join(SEVERAL)} more")
    agent = config.get("agent")
    if isinstance(agent, str) and agent and agent not in recipes().get("agent", []):
        near = registry.nearest(agent, recipes().get("agent", []))
        raise registry.UnknownName(f"no agent {agent!r}{near}")


def check_kwargs(function: Callable, given: Mapping[str, object], what: str) -> None:
    """Raises ConfigError if `given` holds a keyword that the class or function does not take.

    Or a value of another type, where the signature says a plain one (`PLAIN`, or several of them).
    """
    parameters = inspect.signature(function).parameters
    allowed = [k for k, p in parameters.items() if p.kind is not p.POSITIONAL_ONLY]
    for name, value in given.items():
        if name not in allowed:
            raise ConfigError(f"no key {name!r} for {what}{registry.nearest(name, allowed)}")
        said = parameters[name].annotation
        kinds = [part.strip() for part in str(getattr(said, "__name__", said)).split("|")]
        if not PLAIN.issuperset(kinds):
            continue
        kind = type(value).__name__.replace("NoneType", "None")
        fits = kind in kinds or (kind == "int" and "float" in kinds)
        if not fits or value != value:
            shown = "null" if value is None else value
            raise ConfigError(f"{name}={shown} of {what} must be {' or '.join(kinds)}")


def save(path: Path, config: Mapping[str, object]) -> None:
    """Writes a composed config as YAML; the file is whole or absent."""
    import yaml

    text = yaml.safe_dump(_plain(config), sort_keys=False, allow_unicode=True)
    part = path.with_name(path.name + ".part")
    with part.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def load(path: Path) -> dict[str, object]:
    """Reads what `save` wrote; plain data only.

    Raises ConfigError if the file holds anything else.
    """
    import yaml

    try:
        config = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not plain YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{path} holds a {type(config).__name__}, not keys and values")
    _refuse(config)
    return config


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
