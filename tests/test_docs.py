"""The documents: their Python runs, and what they show and point to is there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
CODE = {p.stem: re.findall(r"```python\n(.*?)```", p.read_text(), re.DOTALL) for p in PAGES}


def run(code, folder):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True, text=True, timeout=120, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_task_of_ones_own_is_sixty_lines_and_its_expert_does_it(tmp_path):
    (code,) = CODE["own_task"]
    task = code[: code.index("env = BatchEnv")]
    assert len([line for line in task.splitlines() if line.strip()]) <= 60
    words, _, success = run(code, tmp_path).rpartition(" ")
    assert re.fullmatch(r"poke the \w+ (cube|ball)", words) and float(success) >= 0.95


def test_an_arm_of_ones_own_picks_and_places(tmp_path):
    (code,) = CODE["own_arm"]
    assert float(run(code, tmp_path).rpartition(" ")[2]) == 1.0


def test_every_page_with_python_is_held_to_run():
    assert {name for name, blocks in CODE.items() if blocks} == {"own_task", "own_arm"}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_pictures_and_links_exist(page):
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target
