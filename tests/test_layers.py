"""The house keeps its rules: who imports whom, sizes, docstrings, and what is never used."""

import ast
import re
import statistics
from pathlib import Path

import pytest

import umwelten
from umwelten import registry

ROOT = Path(umwelten.__file__).parent
ROOMS = ("agents", "envs", "robots", "world_models")
NOUNS = {"agents.policy", "envs.task", "robots.robot", "world_models.model"}
ROOF = {
    "__main__",
    "build",
    "cli",
    "collect",
    "config",
    "demo",
    "doctor",
    "score",
    "serve",
    "train",
}
ROOF |= {"video", "card", "fleet", "probe", "profiling", "pictures"}
ROOF |= {"verify", "trials", "suites", "gates", "negative", "published", "tiers", "recorded"}
MAY = {  # what a room, or a file beside the rooms, may import beyond its own room
    "__init__": {"registry"},
    "agents": {"nets", "blocks", "laprop", "optimise", "registry"}
    | {"world_models.contract", "world_models.model"},
    "world_models": {"nets", "blocks", "fused", "kernels", "laprop", "parallel", "registry"},
    "envs": {"robots", "registry"},
    "robots": {"registry"},
    "learn": {"episodes", "parallel", "replay", "stream", "rollout", "checkpoint", "run"},
    "replay": {"episodes"},
    "stream": {"replay"},
    "mixture": {"episodes", "replay"},
    "parallel": set(),
    "hosted": {"learn", "checkpoint", "run"},
    "convert": {"episodes"},
    "episodes": {"shards"},
    "rollout": set(),
    "checkpoint": set(),
    "run": set(),
    "shards": set(),
    "nets": {"kernels"},
    "blocks": {"nets", "fused", "kernels"},
    "laprop": set(),
    "optimise": set(),
    "kernels": set(),
    "fused": {"kernels"},
    "registry": set(),
}
TORCH_SIDE = {"hosted", "agents", "world_models", "nets", "blocks", "laprop", "kernels", "fused"}
TORCH_SIDE |= {"learn", "parallel", "replay", "stream"}
TORCH_SIDE |= {"mixture", "optimise"}
LONG, WALL, FUNCTION = 200, 500, 60
ODD = re.compile(r"Base|Manager|Util|Helper|Factory|Common")
CODE_IN_FILES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
SEEDS = {"np.random.seed", "numpy.random.seed", "random.seed", "torch.manual_seed"}
DRAWS = {"default_rng", "Generator", "rand", "randn", "randint", "choice", "shuffle", "permutation"}
DRAWS |= {"random", "normal", "uniform", "integers", "multinomial", "bootstrap"}
ACTS = {"eval", "exec", "compile", "__import__", "yaml.load", "torch.load", "instantiate"}

SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for folder in (ROOT, *(ROOT / room for room in ROOMS))
    for path in sorted(folder.glob("*.py"))
}
TREES = {name: ast.parse(path.read_bytes()) for name, path in SOURCES.items()}
OTHERS = [p for folder in ("tests", "benchmarks", "examples") for p in (ROOT / folder).glob("*.py")]
MEMBERS = {m.module.partition(".")[2] for room in ROOMS for m in registry.members(room).values()}


def room_of(name):
    """`envs.sim` is of `envs`; a file beside the rooms is its own room."""
    return name.partition(".")[0]


def imports(name, tree, known, at_import=False):
    """Yields the modules of ours that a file imports; only when it is itself imported, if asked."""
    parents = name.split(".")[:-1]
    for node in executed(tree) if at_import else ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = parents[: len(parents) + 1 - node.level]
            stem = [*base, *(node.module or "").split(".")] if node.module else base
            for alias in node.names:
                whole = ".".join([*stem, alias.name])
                yield whole if whole in known else ".".join(stem) or "__init__"
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
        yield from (n for n in names if n.split(".")[0] == "umwelten")


def executed(tree):
    """Yields the nodes that run when the file is imported: all but the inside of functions."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node
            yield from executed(node)


def allowed(name, other, members):
    """Whether the file `name` may import the file `other`."""
    room = room_of(name)
    if other.startswith("umwelten"):
        return False  # source files import each other relatively
    if name in ROOF:
        return True
    if other in ROOF or other == "__init__":
        return False
    if room_of(other) == room:
        return other not in members or name not in members or other in NOUNS
    return bool({other, room_of(other)} & MAY[room])


def third_parties(tree):
    """Returns the outside packages that importing the file imports."""
    nodes = list(executed(tree))
    found = {a.name.split(".")[0] for n in nodes if isinstance(n, ast.Import) for a in n.names}
    froms = [n for n in nodes if isinstance(n, ast.ImportFrom) and not n.level]
    return found | {n.module.split(".")[0] for n in froms}


def reach_torch(trees):
    """Returns the numpy-side files whose import would import torch, by whatever way."""
    heavy = {name for name, tree in trees.items() if "torch" in third_parties(tree)}
    edges = {name: set(imports(name, tree, trees, True)) for name, tree in trees.items()}
    while grown := {n for n in trees if n not in heavy and edges[n] & heavy}:
        heavy |= grown
    return {name for name in heavy if room_of(name) not in TORCH_SIDE}


def forbidden(tree):
    """Returns what a source file uses that no source file may use."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {getattr(node, "module", None) or ""} | {a.name for a in node.names}
            found |= CODE_IN_FILES & {name.split(".")[0] for name in names}
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if (called, "weights_only=True") not in {
                ("torch.load", f"{k.arg}={ast.unparse(k.value)}") for k in node.keywords
            }:
                found |= {called} & (ACTS | SEEDS)
            found |= {called.rpartition(".")[2]} & {"instantiate"}
            for keyword in node.keywords:
                written = f"{keyword.arg}={ast.unparse(keyword.value)}"
                found |= {written} & {"weights_only=False", "allow_pickle=True"}
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "everything"
            found |= {f"except {caught}"} & {"except everything", "except BaseException"}
        if isinstance(node, ast.ClassDef) and ODD.search(node.name):
            found.add(f"class {node.name}")
        if isinstance(node, ast.FunctionDef) and node.args.kwarg:
            passed = [k for n in ast.walk(node) if isinstance(n, ast.Call) for k in n.keywords]
            if any(k.arg is None and ast.unparse(k.value) == node.args.kwarg.arg for k in passed):
                found.add(f"{node.name}(**{node.args.kwarg.arg}) passed on")
    return found


def draws(tree):
    """Returns the calls of a file that draw at random, or make what does."""
    calls = [ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)]
    return [call for call in calls if call.rpartition(".")[2] in DRAWS]


def long_functions(tree):
    """Returns the functions that are longer than a page, their documentation aside."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            told = node.body[0] if ast.get_docstring(node) else None
            told = told.end_lineno - told.lineno + 1 if told else 0
            found += [node.name] * (node.end_lineno - node.lineno + 1 - told > FUNCTION)
    return found


@pytest.mark.parametrize("name", SOURCES)
def test_a_file_imports_what_its_room_may(name):
    others = set(imports(name, TREES[name], SOURCES))
    assert room_of(name) in {*MAY, *ROOF}, f"give {name} a line in MAY"
    assert [other for other in others if not allowed(name, other, MEMBERS)] == []


def test_the_numpy_side_imports_no_torch():
    assert reach_torch(TREES) == set()


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_file_is_short_documented_and_harmless(name):
    tree, lines = TREES[name], SOURCES[name].read_text().splitlines()
    assert len(lines) <= WALL
    assert long_functions(tree) == []
    assert forbidden(tree) == set()
    assert (ast.get_docstring(tree) or "").partition("\n")[0].strip(), "open with a docstring"
    assert not ODD.search(name.title())


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_tests_and_benchmarks_are_short_and_documented(path):
    tree = ast.parse(path.read_bytes())
    assert len(path.read_text().splitlines()) <= WALL
    assert long_functions(tree) == []
    assert ast.get_docstring(tree)


@pytest.mark.parametrize("name", [n for n in ("score",) if n in TREES])
def test_a_score_depends_on_its_seeds_alone(name):
    assert draws(TREES[name]) == []


def test_most_files_are_small():
    sizes = [len(path.read_text().splitlines()) for path in SOURCES.values()]
    assert statistics.median(sizes) < LONG


def test_every_room_is_in_the_wheel():
    listed = re.findall(r'"umwelten\.(\w+)",', (ROOT / "pyproject.toml").read_text())
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages == set(listed)


@pytest.mark.parametrize(
    "name, line",
    [
        ("robots.new", "from ..envs.task import Task"),
        ("envs.new", "from ..world_models import model"),
        ("envs.new", "from umwelten.envs.task import Task"),
        ("agents.new", "from ..world_models.tdmpc2 import TDMPC2"),
        ("agents.new", "from ..envs.sim import Sim"),
        ("world_models.new", "def f():\n    from ..agents.policy import Policy"),
        ("episodes", "from .rollout import rollout"),
        ("learn", "from .config import save"),
        ("rollout", "from . import registry"),
        ("envs.reach", "from .cartpole import CartpoleBalance"),
        ("envs.reach", "from . import cartpole"),
    ],
)
def test_the_check_sees_a_planted_import(name, line):
    planted = list(imports(name, ast.parse(line), {*SOURCES, "rollout", "config"}))
    assert planted
    assert not all(allowed(name, other, MEMBERS) for other in planted)


def test_the_check_sees_torch_behind_two_imports():
    trees = {
        "nets": ast.parse("import torch"),
        "learn": ast.parse("from .nets import mlp"),
        "train": ast.parse("from . import learn"),
        "score": ast.parse("def f():\n    import torch\n    from . import learn"),
    }
    assert reach_torch(trees) == {"train"}


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from cloudpickle import dumps",
        "eval('1')",
        "np.random.seed(0)",
        "torch.manual_seed(0)",
        "torch.load(p)",
        "torch.load(p)\ntorch.load(p, weights_only=True)",
        "f(weights_only=False)",
        "np.load(p, allow_pickle=True)",
        "hydra.utils.instantiate(c)",
        "try: f()\nexcept: g()",
        "class EnvManager: ...",
        "def f(**options): return g(**options)",
    ],
)
def test_the_check_sees_what_is_forbidden(code):
    assert forbidden(ast.parse(code))


@pytest.mark.parametrize("code", ["rng.choice(x)", "np.random.default_rng(0)", "random.random()"])
def test_the_check_sees_a_draw(code):
    assert draws(ast.parse(code))
    assert not draws(ast.parse("np.random.SeedSequence(1).generate_state(3)"))


def test_the_check_lets_good_code_pass():
    code = "generator.manual_seed(0)\nre.compile('a')\nnp.load(p)\ndict(**made)\nmodel.eval()"
    assert forbidden(ast.parse(code)) == set()
    assert long_functions(ast.parse("def f():\n" + "    g()\n" * 59)) == []
    assert long_functions(ast.parse("def f():\n    'f'\n" + "    g()\n" * 59)) == []
    assert long_functions(ast.parse("def f():\n" + "    g()\n" * 60)) == ["f"]
