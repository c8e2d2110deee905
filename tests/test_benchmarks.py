"""Benchmarks: what they time still runs, so that no figure outlives the code it is of."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def scripts(monkeypatch):
    """Makes the scripts importable, as a script's own folder is when it runs."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for path in BENCHMARKS.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.mark.parametrize("name", ["tdmpc2", "dreamer"])
def test_a_models_speed_is_taken_of_calls_that_work(scripts, name):
    if name == "tdmpc2":
        from tdmpc2_speed import cases

        found = cases(1, None)
    else:
        from dreamer_speed import cases

        found = cases(None)
    assert {"update", "plan n=1"} <= set(found) or {"update", "act n=1"} <= set(found)
    for sides in found.values():
        call, count = sides["ours"]
        call()
        assert count >= 1


def test_memory_of_a_model_is_above_what_the_imports_took(scripts):
    from memory import alone

    found = alone("tdmpc2", 1, "ours", {})
    assert found["peak"] > found["before"] > 50
