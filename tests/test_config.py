"""A config is the signature, then recipes, then what is typed; it is checked and never executed."""

import inspect
import tomllib
from pathlib import Path

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from umwelten import config, registry

ROOT = Path(config.__file__).parent
SHIPPED = [(group, name) for group, names in config.recipes().items() for name in names]


def collect(
    task: str,
    /,
    policy: str = "expert",
    episodes: int = 50,
    rate: float = 1.0,
    cameras: tuple[str, ...] = (),
    labels: bool = False,
    agent: str = "",
    model: dict | None = None,
):
    """Records episodes.

    task: a registered task
    episodes: how many
      of them
    """


@pytest.fixture
def names(monkeypatch):
    """Two tasks and a model to name, whatever there is."""
    found = {
        "envs": {n: registry.Member(n, "m", n, {}) for n in ("Reach", "PickPlace")},
        "world_models": {"TDMPC2": registry.Member("TDMPC2", "m", "TDMPC2", {})},
    }
    monkeypatch.setattr(registry, "members", lambda room: found.get(room, {}))


@pytest.fixture
def recipes(tmp_path, monkeypatch, names):
    """A folder of recipes: two agents and two experiments, one of which chooses an agent."""
    texts = {
        "agent/small": "agent: small\nmodel: {name: tdmpc2, size: 1}\nseed_steps: 9\n",
        "agent/big": "agent: big\nmodel: {name: tdmpc2, size: 5}\n",
        "experiment/long": "episodes: 500\nrate: 2\n",
        "experiment/bold": "defaults:\n  - override /agent: big\nepisodes: 7\n",
        "experiment/alien": "horizon: 3\n",
        "experiment/armed": "model: {_target_: os.system}\n",
        "experiment/nosy": "policy: ${oc.env:HOME}\n",
    }
    for name, text in texts.items():
        path = tmp_path / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"# @package _global_\n{text}")
    monkeypatch.setattr(config, "RECIPES", tmp_path)


def refused(*arguments):
    """Returns the one line that refuses the arguments."""
    with pytest.raises((config.ConfigError, registry.UnknownName)) as caught:
        config.compose(collect, list(arguments))
    line = str(caught.value)
    assert line and "\n" not in line
    return line


def test_the_schema_is_the_signature():
    keys = config.schema(collect)
    assert list(keys)[:3] == ["task", "policy", "episodes"]
    assert keys["task"].required and keys["task"].bare
    assert keys["episodes"] == config.Key("episodes", int, 50, about="how many of them")
    assert keys["cameras"].kind is tuple
    assert keys["model"].optional and not keys["rate"].optional


def test_a_verb_that_no_command_line_can_call_is_a_defect():
    def broken(task: str, when: complex): ...

    with pytest.raises(TypeError, match="broken: no command line can give when"):
        config.schema(broken)


def test_defaults_and_typed_values(names):
    assert config.compose(collect, ["reach"])["task"] == "reach"
    made = config.compose(
        collect,
        "task=pick_place episodes=1e3 rate=2 cameras=[front,wrist] labels=true policy=1.10 "
        "model.size=1 model.name=tdmpc2".split(),
    )
    assert made == {
        "task": "pick_place",
        "policy": "1.10",
        "episodes": 1000,
        "rate": 2.0,
        "cameras": ("front", "wrist"),
        "labels": True,
        "agent": "",
        "model": {"size": 1, "name": "tdmpc2"},
    }
    assert isinstance(made["rate"], float)


@pytest.mark.parametrize(
    "typed, answer",
    [
        (["epsiodes=3"], "no key 'epsiodes' for collect; did you mean 'episodes'?"),
        (["task=raech"], "no task 'raech'; did you mean 'reach'?"),
        (["model.name=tdmpc3"], "no model 'tdmpc3'; did you mean 'tdmpc2'?"),
        (["episodes=1.5"], "episodes=1.5 of collect must be int"),
        (["episodes=true"], "episodes=True of collect must be int"),
        (["labels=1"], "labels=1 of collect must be bool"),
        (["rate=nan"], "rate=nan of collect must be float"),
        (["policy=null"], "policy=null of collect must be str"),
        (["cameras=front"], "cameras=front of collect must be a list, as in [a,b]"),
        (["episodes=1,2"], "'episodes=1,2' is a sweep"),
        (["policy.x=1"], "'policy' of collect is no group of keys"),
        (["--episodes=3"], "cannot read '--episodes=3'; write key=value"),
        (["policy=a(b"], "cannot read 'policy=a(b'; quote it: policy='...'"),
        (["model._target_=os.system"], "the key 'model._target_' is refused"),
        (["model={a: [{_target_: os.system}]}"], "the key 'model.a._target_' is refused"),
        (["_target_=os.system"], "no key '_target_'"),
        (["policy=${oc.env:HOME}"], "is refused: a config reads nothing but itself"),
        (["hydra.run.dir=x"], "no key 'hydra.run.dir'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(names, typed, answer):
    arguments = typed if typed[0].startswith("task") else ["task=reach", *typed]
    assert answer in refused(*arguments)


def test_a_missing_task_is_answered_with_the_choice(names):
    assert refused() == "collect needs task=...; there are pick_place, reach"


@settings(max_examples=40, deadline=None)
@given(key=st.text(min_size=1, max_size=9), value=st.text(max_size=9))
def test_no_other_word_is_taken_for_a_key(key, value):
    assume(key.partition("=")[0].split(".")[0] not in {*config.schema(collect), *config.PRESETS})
    refused("task=reach", f"{key}={value}")


def test_recipes_lie_between_the_signature_and_what_is_typed(recipes):
    made = config.compose(collect, ["task=reach", "agent=small"])
    assert (made["agent"], made["model"]) == ("small", {"name": "tdmpc2", "size": 1})
    made = config.compose(collect, ["task=reach", "agent=small", "model.size=19"])
    assert made["model"] == {"name": "tdmpc2", "size": 19}
    made = config.compose(collect, ["task=reach", "experiment=long", "rate=3"])
    assert (made["episodes"], made["rate"]) == (500, 3.0)
    made = config.compose(collect, ["task=reach", "experiment=bold"])
    assert (made["episodes"], made["model"]["size"]) == (7, 5)
    made = config.compose(collect, ["task=reach", "experiment=bold", "agent=small"])
    assert (made["episodes"], made["model"]["size"]) == (7, 1)


def test_the_default_agent_brings_its_recipe(recipes):
    def train(task: str, agent: str = "big", model: dict | None = None): ...

    assert config.compose(train, ["task=reach"])["model"]["size"] == 5
    assert config.compose(train, ["task=reach", "agent=small"])["model"]["size"] == 1


def test_what_an_agent_is_trained_with_is_left_to_verbs_that_train(recipes):
    def train(task: str, agent: str = "", model: dict | None = None, seed_steps: int = 0): ...

    assert config.compose(train, ["task=reach", "agent=small"])["seed_steps"] == 9
    assert "seed_steps" not in config.compose(collect, ["task=reach", "agent=small"])
    assert "no key 'seed_steps'" in refused("task=reach", "agent=small", "seed_steps=3")


def test_recipes_are_checked_as_what_is_typed_is(recipes):
    assert refused("task=reach", "agent=smal") == "no agent 'smal'; did you mean 'small'?"
    assert refused("task=reach", "experiments=long").endswith("did you mean 'experiment'?")
    assert "did you mean 'long'?" in refused("task=reach", "experiment=lnog")
    assert refused("task=reach", "experiment=alien") == (
        "a recipe sets 'horizon', which collect does not take"
    )
    assert "'model._target_' is refused" in refused("task=reach", "experiment=armed")
    assert "reads nothing but itself" in refused("task=reach", "experiment=nosy")


@pytest.mark.parametrize("group, name", SHIPPED)
def test_a_shipped_recipe_is_short_global_and_says_what_it_is(group, name):
    path = ROOT / "configs" / group / f"{name}.yaml"
    lines = path.read_text().splitlines()
    assert len(lines) <= 20
    assert lines[0] == "# @package _global_" and lines[1].startswith("# ")
    content = config.load(path)
    for key, room in config.NAMES.items():
        head, _, rest = key.partition(".")
        value = content.get(head, {}).get(rest) if rest else content.get(head)
        assert value is None or registry.find(room, value)
    if group in ("agent", "task"):
        assert content[group]


def test_a_keyword_that_a_class_does_not_take_is_named():
    config.check_kwargs(collect, {"rate": 1}, "collect")
    with pytest.raises(config.ConfigError, match="no key 'rtae' for tdmpc2; did you mean 'rate'"):
        config.check_kwargs(collect, {"rtae": 1}, "tdmpc2")


@pytest.mark.parametrize("kind", ["tdmpc2", "dreamer_v3", "mppi", "icem", "gradient", "bc"])
def test_defaults_and_whole_numbers_fit_and_other_types_are_refused(kind):
    room = "agents" if kind in ("mppi", "icem", "gradient", "bc") else "world_models"
    made = registry.load(room, kind)
    given = {k: p.default for k, p in inspect.signature(made).parameters.items()}
    usual = {k: v for k, v in given.items() if v is not inspect.Parameter.empty}
    config.check_kwargs(made, usual, kind)
    for name, value in usual.items():
        if type(value) is float:
            config.check_kwargs(made, {name: 1}, kind)
            for wrong in ("abc", float("nan"), None, [1.0]):
                with pytest.raises(config.ConfigError, match=rf"{name}=.* of {kind} must be "):
                    config.check_kwargs(made, {name: wrong}, kind)
        if type(value) is int:
            with pytest.raises(config.ConfigError, match=rf"{name}=2.5 of {kind} must be int"):
                config.check_kwargs(made, {name: 2.5}, kind)
    for fits in ({"explore": True}, {"explore": 0.2}) if kind == "mppi" else ():
        config.check_kwargs(made, fits, kind)


def test_what_is_saved_is_read_back(tmp_path):
    path = tmp_path / "config.yaml"
    config.save(path, {"task": "reach", "cameras": ("a", "b"), "model": {"size": 1}, "out": path})
    assert config.load(path) == {
        "task": "reach",
        "cameras": ["a", "b"],
        "model": {"size": 1},
        "out": str(path),
    }
    assert [p.name for p in tmp_path.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.system [true]",
        "model: {_target_: os.system}",
        "- 1",
        "a: [",
        "",
    ],
)
def test_a_file_that_is_no_plain_config_is_refused(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(config.ConfigError):
        config.load(tmp_path / "config.yaml")


def test_the_citation_names_the_version_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
