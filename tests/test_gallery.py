"""The gallery: it shows every task, and its figures are those that were measured."""

import json
import re
from pathlib import Path

import pytest

from umwelten import registry

ROOT = Path(__file__).resolve().parents[1]
RESULTS = json.loads((ROOT / "benchmarks" / "results" / "gallery.json").read_text())["results"]
GALLERY = (ROOT / "docs" / "gallery.md").read_text()


def test_the_gallery_shows_every_task_there_is():
    assert RESULTS.keys() == registry.members("envs").keys()
    assert re.findall(r"^## (\w+)$", GALLERY, re.M) != []
    assert set(re.findall(r"^## (\w+)$", GALLERY, re.M)) == RESULTS.keys()


@pytest.mark.parametrize("name", RESULTS)
def test_the_gallerys_figures_are_those_that_were_measured(name):
    part = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", GALLERY, re.M | re.S).group(1)
    found = RESULTS[name]
    if found["solved"] is None:
        assert f"expert: success **{found['expert']['success']:.2f}**" in part
        assert f"random: success **{found['random']['success']:.2f}**" in part
        assert found["expert"]["success"] >= 0.95 and found["random"]["success"] <= 0.10
        assert found["instruction"] in part
    else:
        assert f"**{found['solved']:g}**" in part and f"**{found['random']['return']:.1f}**" in part
        assert found["random"]["return"] < found["solved"]


def test_the_table_of_arms_holds_what_was_measured_of_tasks_and_arms_there_are():
    found = json.loads((ROOT / "benchmarks" / "results" / "arms.json").read_text())["results"]
    page = (ROOT / "docs" / "arms.md").read_text()
    arms = [word.strip() for word in re.search(r"^\| task \|(.*)\|$", page, re.M)[1].split("|")]
    for task, row in found.items():
        assert set(row) <= set(registry.load("envs", task).robots)
        cells = re.search(rf"^\| {task} \|(.*)\|$", page, re.M)[1].split("|")
        shown = dict(zip(arms, (cell.strip(" *") for cell in cells), strict=True))
        for arm in arms:
            assert shown[arm] == (f"{row[arm]['success']:.2f}" if arm in row else "–")
            assert arm != "arm" or arm not in row or row[arm]["success"] >= 0.95
