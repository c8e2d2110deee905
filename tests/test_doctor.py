"""The doctor finds what is planted, and a run's environment names all that decides a number."""

import os
import subprocess
import sys

import pytest

from umwelten import doctor


@pytest.fixture
def only(monkeypatch):
    """Lets the doctor make only the given findings."""

    def choose(*findings):
        checks = [name for name in vars(doctor) if name.startswith("_") and name[1].isalpha()]
        for name in checks:
            monkeypatch.setattr(doctor, name, lambda: iter(()))
        monkeypatch.setattr(doctor, "_python", lambda: iter(findings))

    return choose


def test_the_exit_code_tells_whether_something_needed_is_missing(only, capsys):
    only(("ok", "numpy", "2.4.6"), ("note", "GL", "no libEGL [why]"))
    assert doctor.doctor() == 0
    assert "note    GL                  no libEGL [why]\n" in capsys.readouterr().out
    only(("ok", "numpy", "2.4.6"), ("missing", "torch", "absent"))
    assert doctor.doctor() == 1


def test_this_machine_has_what_is_needed():
    found = [f for check in (doctor._python, doctor._packages, doctor._disk) for f in check()]
    assert [f for f in found if f[0] == "missing"] == []
    assert {"numpy", "torch", "mujoco", "ffmpeg"} <= {what for _, what, _ in found}


@pytest.mark.parametrize(
    "package, given, verdict",
    [
        ("numpy", "absent", "missing"),
        ("numpy", "1.26.0", "missing"),
        ("mujoco", "4.0.0", "missing"),
        ("numpy", "2.0.1", "note"),
        ("stable-baselines3", "2.9.9", "note"),
        ("torch", "2.13.0+cpu", "ok"),
    ],
)
def test_a_package_is_judged_by_its_version(monkeypatch, package, given, verdict):
    real = doctor.version
    monkeypatch.setattr(doctor, "version", lambda name: given if name == package else real(name))
    verdicts = {what: verdict for verdict, what, _ in doctor._packages()}
    assert verdicts.pop(package) == verdict
    assert "missing" not in verdicts.values()


def test_a_read_only_cache_is_noted(monkeypatch, tmp_path):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "new" / "cache"))
    assert next(doctor._kernels())[0] == "ok"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert next(doctor._kernels())[0] == "note"


def test_the_camera_that_auto_takes_is_measured():
    gl, camera = doctor._cameras()
    assert gl[:2] in (("ok", "GL"), ("note", "GL")) and gl[2]
    assert camera[:2] == ("ok", "camera auto")
    assert "RayCamera" in camera[2] and "frames/s" in camera[2]


def test_the_environment_names_what_decides_a_number(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    found = doctor.environment()
    assert set(found) == {"command", "machine", "versions", "revision", "threads"}
    assert found["versions"]["mujoco"][0].isdigit()
    assert found["threads"]["OMP_NUM_THREADS"] == "3"
    assert found["machine"]["cores"] >= 1 and found["machine"]["cpu"]
    assert doctor.version("no-such-package") == "absent"


def test_the_revision_marks_a_changed_tree(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    assert doctor.revision() == ""

    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True)

    git("init", "-q")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-q", "-m", "one")
    clean = doctor.revision()
    assert len(clean) == 40
    (tmp_path / "a").write_text("2")
    assert doctor.revision() == clean + "+"


def test_a_benchmark_is_recorded_whole_with_its_surroundings(tmp_path):
    folder = doctor.ROOT / "benchmarks"
    code = (
        f"import sys; sys.path.insert(0, {str(folder)!r}); import numpy as np, record, pathlib\n"
        f"record.RESULTS = pathlib.Path({str(tmp_path)!r})\n"
        "record.record('a', {'x': np.float32(1.5), 'y': np.arange(2)})\n"
        "for name, wrong in (('b', float('nan')), ('c', object()), ('../d', 1)):\n"
        "    try: record.record(name, {'x': wrong})\n"
        "    except (TypeError, ValueError): pass\n"
        "    else: raise SystemExit(name)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    text = (tmp_path / "a.json").read_text()
    assert all(word in text for word in ('"x": 1.5', '"machine"', '"revision"', '"date"'))
