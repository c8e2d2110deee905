"""A tier is what the kept evidence says of the code as it is; what failed or is old counts not."""

import copy
import json
import re

import pytest

from umwelten import cli, registry, tiers

MODELS = [member.snake for member in registry.members("world_models").values()]
GATES = [{"gate": "finite", "passed": True}, {"gate": "seed spread", "passed": None}]
OFFICIAL = {"verdict": "match", "env_steps": 25_000, "budget": 100_000, "low": 973.3, "high": 998}


of_code = tiers.fingerprint


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    """Keeps what the tests promote out of the package, and its code the same meanwhile."""
    monkeypatch.setattr(tiers, "KEPT", tmp_path / "gates")
    monkeypatch.setattr(tiers, "fingerprint", lambda model: "c" * 64)


def evidence(task="reach", official=None, **changed):
    return {
        "task": task, "code": "c" * 64, "control": "", "passed": True,
        "gates": copy.deepcopy(GATES), "official": official or {}, "return": 981.4,
        "date": "2026-11-21T18:00:00+00:00", "runs": [{}, {}],
    } | changed  # fmt: skip


def test_without_evidence_a_model_is_experimental():
    assert tiers.tier("tdmpc2") == ("experimental", "never verified")


def test_passed_gates_alone_do_not_make_a_reference():
    tiers.promote("tdmpc2", evidence())
    assert tiers.tier("tdmpc2") == ("experimental", "2026-11-21: reach 981 by 2 seeds")


def test_with_official_figures_beside_it_a_model_is_a_reference():
    tiers.promote("tdmpc2", evidence())
    tiers.promote("tdmpc2", evidence("cup_catch", OFFICIAL))
    assert tiers.tier("TDMPC2") == (
        "reference",
        "2026-11-21: cup_catch 981 by 2 seeds, official 973 to 998 at 100,000 (match at 25,000); "
        "reach 981 by 2 seeds",
    )


@pytest.mark.parametrize("verdict", ["below", "no official figure at this budget"])
def test_official_figures_that_are_not_met_make_none(verdict):
    tiers.promote("tdmpc2", evidence("cup_catch", OFFICIAL | {"verdict": verdict}))
    assert tiers.tier("tdmpc2")[0] == "experimental"


@pytest.mark.parametrize(
    "changed, says",
    [
        ({"code": "0" * 64}, "of other code"),
        ({"control": "untrained"}, "there to fail"),
        ({"passed": False}, "failed its gates"),
        ({"runs": [{"config": {"parts": {"reward": "my_package.nets:make"}}}]}, "not tdmpc2's own"),
        ({"gates": [{"gate": "alignment", "passed": False}]}, "failed alignment"),
    ],
)
def test_what_proves_nothing_is_refused(changed, says):
    with pytest.raises(ValueError, match=says):
        tiers.promote("tdmpc2", evidence(**changed))
    assert tiers.tier("tdmpc2") == ("experimental", "never verified")


def test_when_the_code_changes_the_tier_is_lost_and_old_evidence_goes(monkeypatch):
    tiers.promote("tdmpc2", evidence("cup_catch", OFFICIAL))
    monkeypatch.setattr(tiers, "fingerprint", lambda model: "1" * 64)
    kind, why = tiers.tier("tdmpc2")
    assert kind == "experimental" and "its code has changed" in why
    tiers.promote("tdmpc2", evidence(code="1" * 64))
    assert tiers.kept("tdmpc2").keys() == {"reach"}


def test_code_is_what_runs(tmp_path, monkeypatch):
    """Comments, docstrings and blank lines may change; a number may not; nor in what it imports."""
    (tmp_path / "world_models").mkdir()
    own, deep = tmp_path / "world_models" / "new.py", tmp_path / "nets.py"
    own.write_text('"""Says."""\nfrom ..nets import mlp\n\n\ndef f():\n    """Does."""\n    g(1)\n')
    deep.write_text("from . import kernels\n\nLR = 0.1  # so\n")
    (tmp_path / "kernels.py").write_text("X = 1\n")
    (tmp_path / "gates.py").write_text("FALL = 0.1\n")
    monkeypatch.setattr(tiers, "ROOT", tmp_path)
    member = registry.Member("New", "umwelten.world_models.new", "New", {})
    monkeypatch.setattr(registry, "find", lambda room, name: member)
    assert [p.name for p in tiers.sources("new")] == ["kernels.py", "nets.py", "new.py"]
    before = of_code("new")
    text = own.read_text().replace("Does.", "Does\n    it.").replace("    g", "    # why\n\n    g")
    own.write_text(text.replace("Says.", "Says more."))
    assert of_code("new") == before
    own.write_text(text.replace("g(1)", "g(2)"))
    assert of_code("new") != before
    own.write_text(text)
    (tmp_path / "kernels.py").write_text("X = 2\n")
    assert of_code("new") != before
    (tmp_path / "kernels.py").write_text("X = 1\n")
    (tmp_path / "gates.py").write_text("FALL = 0.01\n")
    assert of_code("new") != before


def test_a_plugins_model_is_judged_by_its_own_file_and_kept_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "theirs.py").write_text("X = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    member = registry.Member("Theirs", "theirs", "Theirs", {}, "", "a-plugin")
    monkeypatch.setattr(registry, "find", lambda room, name: member)
    assert tiers.sources("theirs") == [tmp_path / "theirs.py"]
    before = of_code("theirs")
    (tmp_path / "theirs.py").write_text("X = 2\n")
    assert of_code("theirs") != before
    assert tiers.tier("theirs") == ("experimental", "of a-plugin")
    with pytest.raises(ValueError, match="is of a-plugin; its evidence is kept there"):
        tiers.promote("theirs", {})


def test_every_model_is_listed_with_its_tier(capsys, monkeypatch):
    tiers.promote("tdmpc2", evidence("cup_catch", OFFICIAL))
    monkeypatch.setenv("COLUMNS", "250")
    assert cli.main(["list", "models"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^tdmpc2 .* reference: 2026-11-21: cup_catch 981 by 2 seeds", shown, re.M)
    assert re.search(r"^dreamer_v3 .* experimental: never verified", shown, re.M)
    assert re.search(r"^simulator_model .* the truth", shown, re.M)


def test_what_is_kept_with_the_package_is_whole_and_names_no_machine_path():
    kept = tiers.ROOT / "assets" / "gates"
    for path in kept.glob("*.json"):
        assert path.stem in MODELS
        text = path.read_text()
        assert not re.search(r"/(work|tmp|root|home)/", text)
        for task, found in json.loads(text)["evidence"].items():
            assert found["task"] == task and found["passed"] and not found["control"]
            assert all(gate["passed"] is not False for gate in found["gates"])
            assert found["date"] and found["machine"] and found["versions"] and found["command"]
