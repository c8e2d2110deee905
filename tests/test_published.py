"""The official numbers are those that were made; a return is held beside the right ones."""

import gzip
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from umwelten import published, registry

ROOT = Path(__file__).resolve().parents[1]
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
        ("sac", "cartpole_swingup", False, 100_000, [844.8, 825.8, 834.3]),
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
    sources = [content[k] for k in ("source", "rerun") if k in content]
    for source in sources:
        assert source["repository"].startswith("https://github.com/") and source["date"]
        assert len(source["commit"]) == 40
    digests = [*content["source"].get("sha256", {}).values()]
    digests += [content["rerun"]["sha256"]] if "rerun" in content else []
    for table in content["tables"].values():
        assert len(set(table) & TASKS) >= 10
        for curve in table.values():
            digests += [curve["sha256"]] if "sha256" in curve else []
            assert all(len(v) == len(curve["steps"]) for v in curve["seeds"].values())
            assert max(curve["steps"]) <= 1_000_000 and len(curve["seeds"]) >= 3
    assert len(digests) > 2 and all(len(d) == 64 for d in digests)
    assert (published.FOLDER / f"{model}.json").stat().st_size < 100_000


def test_a_changed_number_is_refused(changed):
    with pytest.raises(published.ChangedNumbers, match=r"tdmpc2\.json holds other numbers"):
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


# ---- how the files are made


def commit(folder, files):
    folder.mkdir()
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    for arguments in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "x"]):
        subprocess.run(["git", "-C", str(folder), *arguments], check=True)


def test_a_stranger_can_make_the_files_from_clones(tmp_path):
    """Every number is one of a planted file: seeds apart, windows averaged, later steps left."""
    rows = "step,reward,seed\n0,1,2\n0,3,1\n100000,5,1\n100000,7,2\n1100000,9,1\n1100000,9,2\n"
    runs = [{"task": "dmc_ball_in_cup_catch", "seed": s, "xs": [94_000, 96_000, 104_000, 200_000],
             "ys": [99.0, 10.0 + s, 20.0 + s, 30.0]} for s in (0, 1)]  # fmt: skip
    curve = {"steps": [0, 100_000, 1_000_000], "values": [0, 6, 8], "lcbs": [0, 4, 7],
             "ucbs": [0, 8, 9]}  # fmt: skip
    scores = gzip.compress(json.dumps(runs).encode())
    states = "results/tdmpc2"
    commit(tmp_path / "tdmpc2", {
        f"{states}/cup-catch.csv": rows.encode(), f"{states}-pixels/cup-catch.csv": rows.encode(),
        f"{states}/mw-reach.csv": b"step,success,seed\n0,1,1\n",
        "results/sac/cup-catch.csv": rows.encode(),
    })  # fmt: skip
    commit(tmp_path / "dreamerv3", {
        f"scores/dmc_{k}-dreamerv3.json.gz": scores for k in ("proprio", "vision")
    })  # fmt: skip
    both = {"tdmpc2": {"cup-catch": curve}, "dreamerv3": {"cup-catch": curve}}
    again = {"results/data_dmc_all_1M.json": json.dumps(both).encode()}
    commit(tmp_path / "bmpc", again)
    code = (
        f"import sys, pathlib; sys.path.insert(0, {str(ROOT / 'benchmarks')!r}); import official\n"
        "official.FOLDER = pathlib.Path('made')\n"
        "sys.argv[1:] = ['tdmpc2=tdmpc2', 'dreamerv3=dreamerv3', 'bmpc=bmpc']; official.main()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, capture_output=True)
    made = {p.stem: json.loads(p.read_text()) for p in (tmp_path / "made").glob("*.json")}
    td, dreamer = made["tdmpc2"]["tables"], made["dreamer_v3"]["tables"]
    assert td["state"].keys() == td["pixels"].keys() == {"cup_catch"}
    found = td["state"]["cup_catch"]
    assert found["steps"] == [0, 100_000] and found["seeds"] == {"1": [3, 5], "2": [1, 7]}
    assert found["sha256"] == hashlib.sha256(rows.encode()).hexdigest()
    assert found["rerun"]["low"] == [0, 4, 7] and "rerun" not in td["pixels"]["cup_catch"]
    assert made["sac"]["tables"]["state"]["cup_catch"]["seeds"] == {"1": [3, 5], "2": [1, 7]}
    found = dreamer["state"]["cup_catch"]
    assert found["steps"] == [90_000, 100_000, 200_000]
    assert found["seeds"] == {"0": [99, 15, 30], "1": [99, 16, 30]}
    assert made["dreamer_v3"]["source"]["sha256"]["pixels"] == hashlib.sha256(scores).hexdigest()


# ---- returns of the episodes that training collected


SWINGUP = published.curve("dreamer_v3", "cartpole_swingup")  # at 20,000: 137.1 to 213.2


def collected(*returns, first=1000):
    """Returns the [env steps, return] of episodes that end every 1000 steps."""
    return [[first + 1000 * i, float(x)] for i, x in enumerate(returns)]


@pytest.mark.parametrize("value, verdict", [(300, "above"), (150, "match"), (120, "pass"),
                                            (100, "below")])  # fmt: skip
def test_collected_episodes_count_where_the_official_ones_were(value, verdict):
    # far from the budget they earn what would be above, or below
    runs = [collected(*[999 - 9 * value] * 18, value - 10, value, value + 10, *[0] * 8)] * 2
    found = published.compare_collected(SWINGUP, 29_000, runs)
    assert (found["verdict"], found["budget"], found["return"]) == (verdict, 20_000, value)
    assert found["collected"] == [3, 3] and found["env_steps"] == 20_000


def test_each_run_counts_alike_and_none_may_be_without_an_episode():
    runs = [collected(*[0] * 19, 180), collected(140, 150, 160, first=19_000)]
    found = published.compare_collected(SWINGUP, 20_999, runs)
    assert found["return"] == (90 + 150) / 2 and found["collected"] == [2, 3]
    for env_steps, given in ((20_999, [*runs, collected(500)]), (9_999, runs)):
        found = published.compare_collected(SWINGUP, env_steps, given)
        assert found["verdict"] == published.NOTHING and "return" not in found


def test_what_is_held_to_collected_episodes_is_said_to_be_of_them():
    of_training = {m for m in published.DIGESTS if "training" in published.load(m)["unit"]}
    assert of_training == {*published.COLLECTED}
