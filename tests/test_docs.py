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


def test_a_world_model_of_ones_own_is_sixty_lines_keeps_every_promise_and_plans(tmp_path):
    model, promises, use, _ = CODE["own_model"]
    assert len([line for line in model.splitlines() if line.strip()]) <= 60
    said = run("\n".join((model, promises, use)), tmp_path)
    chance, planned = map(float, re.findall(r"\d+", said))
    assert chance < 500 and planned > 900, said


TOLD = (ROOT / "docs" / "own_model.md").read_text()
POINTS = re.findall(r'```toml\n\[project\.entry-points\."(.*)"\]\n(\w+) = "(.*):(.*)"\n```', TOLD)
COMMANDS = re.findall(r"^    umwelten (train .*)$", TOLD, re.MULTILINE)


@pytest.mark.parametrize("which", (0, 1), ids=("model", "part"))
def test_what_a_package_announces_trains_by_its_name(which, tmp_path):
    code = CODE["own_model"][(0, 3)[which]]
    group, point, module, name = POINTS[which]
    package, info = tmp_path / "my_package", tmp_path / "mine-1.dist-info"
    for folder in (package, info):
        folder.mkdir()
    (package / f"{module.partition('.')[2]}.py").write_text(code)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{point} = {module}:{name}\n")
    small = "steps=12 seed_steps=10 pretrain=2 ratio=0 evaluate_every=0 device=cpu out=run"
    small += " planner.samples=30 planner.elites=4 n=2" + " model.size=1 model.batch_size=4" * which
    given = [*COMMANDS[which].split(), *small.split()]
    run(f"from umwelten import cli\nassert cli.main({given}) == 0", tmp_path)
    assert (tmp_path / "run" / "RUN.md").exists()


def test_every_page_with_python_is_held_to_run():
    pages = {"own_task", "own_arm", "own_model"}
    assert {name for name, blocks in CODE.items() if blocks} == pages


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_pictures_and_links_exist(page):
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target
