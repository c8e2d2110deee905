"""The command line is quick to help, exact in refusing, and hands a verb what was asked for."""

import re
import subprocess
import sys
import types

import pytest

import umwelten
from umwelten import cli, config, registry


def brew(
    task: str, cups: int = 2, strong: bool = False, kinds: tuple = (), model: dict | None = None
):
    """Brews tea
    in cups.

    At length.

    task: what for
    cups: how many

    umwelten brew task=reach
    umwelten brew task=reach cups=3
    """
    brewed.append(locals())
    if cups == 0:
        raise KeyboardInterrupt
    if cups < 0:
        raise ZeroDivisionError("cups")
    return cups if strong else None


brewed: list[dict] = []


@pytest.fixture
def fake(monkeypatch):
    """Makes `brew` a verb, and Reach a task."""
    monkeypatch.setattr(cli, "VERBS", {"brew": "kitchen", "list": "cli"})
    monkeypatch.setitem(sys.modules, "umwelten.kitchen", types.SimpleNamespace(brew=brew))
    reach = {"Reach": registry.Member("Reach", "m", "Reach", {}, "Reaches.")}
    monkeypatch.setattr(registry, "members", lambda room: reach if room == "envs" else {})
    brewed.clear()


def run(*arguments):
    """Runs the command in its own process."""
    command = [sys.executable, "-m", "umwelten", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_verb_gets_what_was_typed_and_what_was_not(fake):
    assert cli.main(["brew", "task=reach", "cups=3", "kinds=[green]"]) == 0
    assert brewed == [
        {"task": "reach", "cups": 3, "strong": False, "kinds": ("green",), "model": None}
    ]
    assert cli.main(["brew", "task=reach", "cups=5", "strong=true"]) == 5


def test_help_tells_purpose_keys_types_defaults_and_examples(fake, capsys):
    assert cli.main(["brew", "task=nonsense", "--help"]) == 0
    assert not brewed
    assert capsys.readouterr().out == (
        "usage: umwelten brew [key=value ...]\n\n"
        "Brews tea in cups.\n\n"
        "keys:\n"
        "  task    str, needed   what for\n"
        "  cups    int = 2       how many\n"
        "  strong  bool = false\n"
        "  kinds   list = []\n"
        "  model   keys\n\n"
        "examples:\n"
        "  umwelten brew task=reach\n"
        "  umwelten brew task=reach cups=3\n"
    )
    for arguments in ([], ["--help"], ["help"]):
        assert cli.main(arguments) == 0
        assert re.search(r"^  brew +Brews tea in cups\.$", capsys.readouterr().out, re.M)


@pytest.mark.parametrize(
    "typed, answer",
    [
        ("brwe", "no verb 'brwe'; did you mean 'brew'?"),
        ("brew task=reach cusp=1", "no key 'cusp' for brew; did you mean 'cups'?"),
        ("brew task=raech", "no task 'raech'; did you mean 'reach'?"),
        ("brew cups=1", "brew needs task=...; there are reach"),
        ("brew task=reach cups=many", "cups=many of brew must be int"),
        ("brew reach", "cannot read 'reach'; write key=value, as in seed=1"),
        ("list taks", "no list 'taks'; did you mean 'tasks'?"),
    ],
)
def test_a_refusal_is_one_line_and_exit_code_2(fake, capsys, typed, answer):
    assert cli.main(typed.split()) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"umwelten: {answer}\n")
    assert not brewed


def test_interruption_is_130_and_a_defect_keeps_its_traceback(fake, capsys):
    assert cli.main(["brew", "task=reach", "cups=0"]) == 130
    assert capsys.readouterr().err == "\numwelten: interrupted\n"
    with pytest.raises(ZeroDivisionError):
        cli.main(["brew", "task=reach", "cups=-1"])


def test_list_shows_members_and_recipes(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.main(["list"]) == 0
    shown = capsys.readouterr().out
    for room in cli.ROOMS.values():
        for member in registry.members(room).values():
            assert re.search(rf"^{member.snake}\s", shown, re.M), member
            assert room != "envs" or registry.gym_id(member) in shown
    for group, names in config.recipes().items():
        for name in names:
            assert f"{group}={name} " in shown
    assert cli.main(["list", "tasks"]) == 0
    assert capsys.readouterr().out in shown


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_documents_every_key_and_shows_two_commands(verb):
    function = cli.verb(verb)
    keys = config.schema(function)
    assert [key.name for key in keys.values() if not key.about] == []
    examples = cli._summary(function)[1]
    assert len(examples) >= (2 if keys else 1)
    for example in examples:
        words = example.split()
        assert words[:2] == ["umwelten", verb]
        config.compose(function, words[2:])


def test_help_is_cheap():
    code = (
        "import sys; from umwelten import cli\n"
        "cli.overview(); [cli.help_of(cli.verb(v)) for v in cli.VERBS]; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not set(done.stdout.split()) & {"torch", "mujoco", "numba", "hydra", "rich"}


def test_the_process_answers_as_the_function_does():
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"umwelten {umwelten.__version__}\n")
    done = run("trian")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "umwelten: no verb 'trian'; did you mean 'train'?\n"
    assert run("list", "robots").returncode == 0


def test_a_reader_that_goes_away_leaves_no_traceback():
    command = f"{sys.executable} -m umwelten list | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("tasks", "")
