"""The official numbers are those that were made; a return is held beside the right ones."""

import json

import pytest

from umwelten import published, registry

TASKS = {member.snake for member in registry.members("envs").values()}


@pytest.fixture
def changed(monkeypatch, tmp_path):
    """A copy of the files in which one digit is another."""
    published.load.cache_clear()
    for name in published.DIGESTS:
        text = (published.FOLDER / f"{name}.json").read_text()
        (tmp_path / f"{name}.json").write_text(text.replace("998.4", "998.5", 1))
    monkeypatch.setattr(published, "FOLDER", tmp_path)
    yield
    published.load.cache_clear()


# Source: the authors' files, read by hand: results/tdmpc2/*.csv and results/tdmpc2-pixels/*.csv;
# scores/dmc_proprio-dreamerv3.json.gz and dmc_vision-dreamerv3.json.gz, means of 95k to 105k steps.
@pytest.mark.parametrize(
    "model, task, pixels, budget, seeds",
    [
        ("tdmpc2", "cartpole_balance", False, 100_000, [997.9, 997.0, 998.4]),
        ("tdmpc2", "cup_catch", False, 100_000, [986.7, 983.7, 973.3]),
        ("tdmpc2", "walker_run", False, 1_000_000, [837.0, 833.7, 856.3]),
        ("tdmpc2", "walker_walk", True, 100_000, [458.3, 437.4, 495.4]),
        ("dreamer_v3", "cartpole_balance", False, 100_000, [787.5, 931.9, 752.4, 966.2, 760.4]),
    ],
)
def test_the_numbers_are_the_authors(model, task, pixels, budget, seeds):
    curve = published.curve(model, task, pixels)
    i = curve["steps"].index(budget)
    assert [curve["seeds"][s][i] for s in sorted(curve["seeds"])] == seeds


@pytest.mark.parametrize("model", published.DIGESTS)
def test_every_number_has_a_source_and_every_table_our_tasks(model):
    content = published.load(model)
    for source in (content["source"], content["rerun"]):
        assert source["repository"].startswith("https://github.com/") and source["date"]
        assert len(source["commit"]) == 40
    digests = [content["rerun"]["sha256"], *content["source"].get("sha256", {}).values()]
    for table in content["tables"].values():
        assert len(set(table) & TASKS) >= 10
        for curve in table.values():
            digests += [curve["sha256"]] if "sha256" in curve else []
            assert all(len(v) == len(curve["steps"]) for v in curve["seeds"].values())
            assert max(curve["steps"]) <= 1_000_000 and len(curve["seeds"]) >= 3
    assert len(digests) > 2 and all(len(d) == 64 for d in digests)
    assert (published.FOLDER / f"{model}.json").stat().st_size < 100_000


def test_a_changed_number_is_refused(changed):
    with pytest.raises(published.ChangedNumbers, match="tdmpc2.json holds other numbers"):
        published.load("tdmpc2")


def test_a_model_without_official_numbers_has_none():
    assert published.load("another") == {} and published.curve("another", "reach") is None
    assert published.curve("tdmpc2", "reach") is None


CURVE = {
    "steps": [0, 100_000, 200_000],
    "seeds": {"1": [0, 900, 950], "2": [0, 920, 960]},
    "rerun": {"steps": [0, 100_000], "mean": [0, 910], "low": [0, 880], "high": [0, 915]},
}


@pytest.mark.parametrize(
    "steps, value, verdict",
    [
        (100_000, 900, "match"),
        (100_000, 880, "match"),  # the rerun's bound widens the range
        (100_000, 921, "above"),
        (100_000, 879, "pass"),
        (100_000, 850, "pass"),
        (100_000, 849, "below"),
        (96_000, 849, "below"),  # a budget within 5 % is the same
        (104_000, 900, "match"),
        (200_000, 940, "pass"),
        (150_000, 940, "pass"),  # the next budget's, early
        (25_000, 890, "match"),
        (25_000, 849, "no official figure at this budget"),
        (300_000, 990, "no official figure at this budget"),
    ],
)
def test_a_return_is_held_beside_its_budget(steps, value, verdict):
    found = published.compare(CURVE, steps, value)
    assert found["verdict"] == verdict and found["return"] == value
    if "budget" in found:
        assert found["early"] == (steps < 0.95 * found["budget"])
    json.dumps(found, allow_nan=False)
