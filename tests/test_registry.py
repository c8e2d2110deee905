"""The registry finds what the files say, imports nothing, and its errors name the nearest."""

import ast
import importlib.metadata
import subprocess
import sys
import textwrap
import types

import gymnasium
import pytest

from umwelten import registry


def room(folder, **files):
    """Writes files into a folder and returns what a scan of it as the room `envs` finds."""
    for stem, text in files.items():
        (folder / f"{stem}.py").write_text(textwrap.dedent(text))
    return registry._scan(folder, "umwelten.envs")


def test_a_concrete_public_descendant_of_the_noun_is_a_member(tmp_path):
    found = room(
        tmp_path,
        task="class Task(ABC):\n    time_limit = 10.0\n    version = 0",
        table='''
            class Tabletop(Task, ABC):
                control_dt = 0.1
            class Push(Tabletop):
                """Pushes a cube.

                At length."""
                time_limit: float = 5.0
                name = f"not a {literal}"
            class _Hidden(Task): pass
            class Partial(Task):
                @abstractmethod
                def reward(self): ...
            class Bystander: pass
        ''',
    )
    assert list(found) == ["Push"]
    push = found["Push"]
    assert dict(push.constants) == {"time_limit": 5.0, "control_dt": 0.1, "version": 0}
    assert (push.module, push.about) == ("umwelten.envs.table", "Pushes a cube.")


def test_a_scan_runs_no_code(tmp_path):
    found = room(tmp_path, bomb="raise SystemExit\nclass Boom(Task): pass")
    assert list(found) == ["Boom"]


@pytest.mark.parametrize("room", registry.ROOMS)
def test_outlines_tell_what_whole_files_do(room, monkeypatch):
    outlined = registry.members(room)
    registry._scan.cache_clear()
    monkeypatch.setattr(registry, "_outline", ast.parse)
    assert list(registry.members(room).items()) == list(outlined.items())
    registry._scan.cache_clear()


def test_a_function_that_reaches_further_left_is_read_whole(tmp_path):
    text = '"""\n<a>\n"""'
    code = f"class Far(Task):\n    def spec(self):\n        return {text}\n    time_limit = 2.0\n"
    (tmp_path / "far.py").write_text(code)
    (member,) = registry._scan(tmp_path, "umwelten.envs").values()
    assert member.constants == {"time_limit": 2.0}


def test_two_members_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"two members of envs are called 'PUSH'.*\.a and .*\.b"):
        room(tmp_path, a="class Push(Task): pass", b="class PUSH(Task): pass")


def test_a_robot_is_a_file_with_a_spec(tmp_path):
    (tmp_path / "arm.py").write_text('"""An arm."""\nREACH = 0.8\ndef spec(): ...')
    (tmp_path / "bus.py").write_text("class Bus: ...")
    found = registry._scan(tmp_path, "umwelten.robots")
    assert list(found) == ["arm"]
    assert found["arm"].constants["REACH"] == 0.8


@pytest.mark.parametrize(
    "name, typed",
    [("PickPlace", "pick_place"), ("TDMPC2", "tdmpc2"), ("CartpoleSwingup", "cartpole_swingup")],
)
def test_names_in_two_spellings(name, typed, monkeypatch):
    member = registry.Member(name, "m", name, {})
    monkeypatch.setattr(registry, "members", lambda room: {name: member})
    assert member.snake == typed
    assert registry.find("envs", name) is registry.find("envs", typed) is member


def test_an_unknown_name_is_answered_with_the_nearest_in_its_own_spelling(monkeypatch):
    names = {n: registry.Member(n, "m", n, {}) for n in ("PushBlock", "Reach")}
    monkeypatch.setattr(registry, "members", lambda room: names)
    with pytest.raises(registry.UnknownName) as caught:
        registry.load("envs", "PushBlok")
    assert str(caught.value) == "no task 'PushBlok'; did you mean 'PushBlock'?"
    with pytest.raises(LookupError, match=r"no task 'push_blok'; did you mean 'push_block'\?"):
        registry.find("envs", "push_blok")
    with pytest.raises(LookupError, match="no task 'zzz'; there are push_block, reach"):
        registry.find("envs", "zzz")


def test_an_unknown_room_is_refused():
    with pytest.raises(ValueError, match="no room 'env'; there are envs"):
        registry.members("env")


def plugin(monkeypatch, *points):
    """Pretends that the given entry points (name, value) are installed."""
    made = [
        importlib.metadata.EntryPoint(name, value, "umwelten.envs")._for(
            types.SimpleNamespace(name=f"dist{i}")
        )
        for i, (name, value) in enumerate(points)
    ]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: made)


def test_a_third_party_is_found_by_its_entry_point(monkeypatch):
    task = type("Task", (), {})
    theirs = type("Juggle", (task,), {})
    module = types.SimpleNamespace(Juggle=theirs, Stone=type("Stone", (), {}))
    monkeypatch.setitem(sys.modules, "their_tasks", module)
    plugin(
        monkeypatch,
        ("Juggle", "their_tasks:Juggle"),
        ("Absent", "their_nowhere:Absent"),
        ("Stone", "their_tasks:Stone"),
    )
    assert registry.load("envs", "juggle") is theirs
    with pytest.raises(LookupError, match="'Absent' of the plugin 'dist1' does not load: ModuleNo"):
        registry.load("envs", "Absent")
    with pytest.raises(LookupError, match="'Stone' of the plugin 'dist2' is no Task"):
        registry.load("envs", "Stone")
    with pytest.raises(LookupError, match="did you mean 'Juggle'"):
        registry.load("envs", "Jugle")
    assert [m.name for m in registry.plugins("envs")] == ["Juggle", "Absent", "Stone"]


def test_two_plugins_that_claim_a_name_are_both_named(monkeypatch):
    plugin(monkeypatch, ("Juggle", "a:Juggle"), ("juggle", "b:Juggle"))
    with pytest.raises(LookupError, match="claimed by dist0 and dist1"):
        registry.find("envs", "juggle")


@pytest.mark.parametrize("name", registry.ROOMS)
def test_every_member_loads_and_is_what_its_file_says(name):
    for member in registry.members(name).values():
        value = registry.load(name, member.snake)
        for constant, literal in member.constants.items():
            assert getattr(value, constant) == literal, (member.name, constant)


def test_every_task_has_a_gym_id_and_registering_again_changes_nothing():
    before = dict(gymnasium.registry)
    registry.register_gym()
    assert dict(gymnasium.registry) == before
    for member in registry.members("envs").values():
        spec = gymnasium.spec(f"umwelten/{member.name}-v{member.constants.get('version', 0)}")
        assert spec.kwargs == {"task": member.name}
        steps = member.constants["time_limit"] / member.constants["control_dt"]
        assert spec.max_episode_steps == round(steps)


def test_a_task_without_its_constants_is_refused(monkeypatch):
    lame = registry.Member("Lame", "umwelten.envs.lame", "Lame", {"control_dt": 0.1})
    monkeypatch.setattr(registry, "members", lambda room: {"Lame": lame})
    with pytest.raises(ValueError, match=r"lame\.Lame needs time_limit as literal"):
        registry.register_gym()


def test_importing_the_package_stays_cheap():
    code = "import sys, umwelten; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "umwelten.registry" in loaded
    assert not loaded & {"torch", "mujoco", "numba", "hydra", "rich", "umwelten.envs"}
