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
