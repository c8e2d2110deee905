"""The README's Python runs as it stands, its commands are verbs, its figures are the records'."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from umwelten import cli

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_the_python_runs():
    (code,) = blocks("python")
    assert len(code.strip().splitlines()) <= 16
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "cube" in done.stdout or "cylinder" in done.stdout


def test_every_command_names_a_verb():
    lines = [line.split("#")[0].split() for block in blocks("bash") for line in block.splitlines()]
    verbs = [words[1] for words in lines if words[:1] == ["umwelten"]]
    assert verbs and set(verbs) <= set(cli.VERBS)


def test_pictures_and_links_exist():
    for target in re.findall(r"\]\((?!http)([^)]+)\)", TEXT):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("name", re.findall(r"<!-- from (\w+) -->", TEXT) or ["nothing"])
def test_figures_are_what_the_benchmarks_wrote(name):
    """Every number in a block `<!-- from NAME -->` stands in results/NAME.json or a NAME_*.json."""
    assert name != "nothing", "the README quotes no record"
    folder, known = ROOT / "benchmarks" / "results", set()
    files = [*folder.glob(f"{name}.json")] or [*folder.glob(f"{name}_*.json")]
    assert files, f"no benchmark wrote {name}"

    def walk(value):
        if isinstance(value, dict | list):
            for item in value.values() if isinstance(value, dict) else value:
                walk(item)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            known.update({f"{value:.{k}f}" for k in range(4)} | {f"{value:,.0f}", str(value)})

    for file in files:
        walk(json.loads(file.read_text())["results"])
    for block in re.findall(rf"<!-- from {name} -->\n(.*?)\n<!-- end -->", TEXT, re.DOTALL):
        for number in re.findall(r"\*\*([\d.,]+)\*\*", block):
            assert number in known, f"{number} is in no record of {name}"
