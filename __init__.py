"""Umwelten: grounded worlds, episodes, world models and planners in one loop."""

from importlib.metadata import version as _version

from .registry import register_gym as _register_gym

__version__ = _version("umwelten")  # pyproject.toml is the one place

_register_gym()
