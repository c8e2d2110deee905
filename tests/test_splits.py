"""What a split holds out, training never draws; a test split is new in one named thing alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umwelten import registry
from umwelten.envs import scene
from umwelten.envs.env import BatchEnv
from umwelten.envs.language import NAMES, RGBA, SHAPES, VERBS, Description, Instruction
from umwelten.envs.reach import Reach
from umwelten.envs.splits import (
    FORMS,
    HELD_COLOURS,
    SPLITS,
    Grammar,
    held_pair,
    held_phrase,
    split_of,
    split_of_words,
)

SCENES = [("ball", "cube", "cylinder"), ("cube", "cylinder", "disc", "disc"), ("cube", "cube")]


@pytest.mark.parametrize("split", SPLITS[1:])
@pytest.mark.parametrize("shapes", SCENES, ids=len)
@given(seed=st.integers(0, 2**32), u=st.floats(0, 1, exclude_max=True), distinct=st.booleans())
def test_what_is_drawn_from_a_split_belongs_to_it(split, shapes, seed, u, distinct):
    if distinct and len(shapes) == 4:
        shapes = shapes[:3]
    grammar, named = Grammar(split), (0, len(shapes) - 1)
    colours = grammar.colours(np.random.default_rng(seed), shapes, named, distinct=distinct)
    things = [(NAMES[c], s) for c, s in zip(colours, shapes, strict=True)]
    assert len(set(things)) == len(things)
    assert not distinct or len(set(colours)) == len(colours)
    phrase, form = grammar.phrase(u, 6), grammar.form(u)
    assert split_of(things, named, phrase, form) == split
    thing, mark = (Description(s, c) for c, s in (things[0], things[-1]))
    text = Instruction("place", thing, "on", (mark,)).text(phrase, form)
    assert split_of_words(text) == split


@pytest.mark.parametrize("split", SPLITS)
def test_every_colour_pair_and_phrase_of_a_split_is_drawn(split):
    grammar, rng = Grammar(split), np.random.default_rng(0)
    seen, phrases = set(), set()
    for _ in range(400):
        colours = grammar.colours(rng, SCENES[0], (0,))
        seen |= {(NAMES[c], s) for c, s in zip(colours[:1], SCENES[0][:1], strict=True)}
        phrases.add(grammar.phrase(rng.random(), 6))
    allowed = {
        "all": set(NAMES),
        "test_colours": set(HELD_COLOURS),
        "test_compositions": {"red"},
    }.get(split, set(NAMES) - {*HELD_COLOURS, "red"})
    assert seen == {(colour, "ball") for colour in allowed}
    held = {2, 5}
    whole = set(range(6))
    assert phrases == {"all": whole, "test_phrasings": held}.get(split, whole - held)


def test_training_still_sees_every_shape_and_every_other_colour():
    pairs = {(c, s) for c in NAMES for s in SHAPES if c not in HELD_COLOURS}
    held = {pair for pair in pairs if held_pair(*pair)}
    kept = pairs - held
    assert {c for c, _ in kept} == set(NAMES) - set(HELD_COLOURS)
    assert all(sum(s == shape for _, s in held) == 1 for shape in SHAPES)
    assert ("red", "ball") in held and ("yellow", "cube") in held
    for phrases in VERBS.values():
        assert {held_phrase(k) for k in range(len(phrases))} == {True, False}
    assert {held_phrase(form) for form in range(FORMS)} == {True, False}


def test_what_is_new_in_two_ways_or_in_what_is_not_named_is_in_no_split():
    red_ball, cube, purple = ("red", "ball"), ("red", "cube"), ("purple", "cube")
    assert split_of([red_ball, cube], [0]) == "test_compositions"
    assert split_of([red_ball, cube], [1]) == ""  # it lies about, and is new
    assert split_of([red_ball, purple], [0, 1]) == ""
    assert split_of([purple, cube], [0], phrase=2) == ""
    assert split_of([cube], [0]) == "train" and split_of([cube], [0], form=2) == "test_phrasings"
    assert split_of_words("touch the purple ball") == ""
    assert split_of_words("reach the red one") == "train"
    assert split_of_words("reach the brick") == "test_phrasings"
    assert split_of_words("set the red cube down on the blue disc") == "test_phrasings"


def test_the_default_split_takes_what_a_task_drew():
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    assert Grammar().colours(rng, SCENES[0], (0,), drawn=np.array([5, 0, 0])) == [5, 0, 0]
    assert rng.bit_generator.state == before
    assert [Grammar().phrase(u, 3) for u in (0.0, 0.34, 0.99)] == [0, 1, 2]


def test_mistakes_are_told():
    with pytest.raises(ValueError, match="no split 'test'; there are all, train"):
        Grammar("test")
    with pytest.raises(ValueError, match="too few colours to tell"):
        Grammar("train").colours(np.random.default_rng(0), ["cube"] * 4, (0,))
    with pytest.raises(ValueError, match="give a verb at least 3"):
        Grammar("test_phrasings").phrase(0.5, 2)


class Chosen(Reach):
    """Reach whose episodes are of one split, as a task draws from a Grammar."""

    def __init__(self, split):
        super().__init__()
        self.grammar = Grammar(split)

    def reset(self, sim, i, rng):
        super().reset(sim, i, rng)
        target, phrase, _, *colours = sim.userdata[i].astype(int)
        colours = self.grammar.colours(rng, SCENES[0], (target,), drawn=colours, distinct=True)
        scene.paint(sim, i, SCENES[0], colours)
        sim.userdata[i, 1] = self.grammar.phrase((phrase + 0.5) / 3, 3)
        sim.userdata[i, 3:] = colours


@pytest.mark.parametrize("split", SPLITS)
def test_a_worlds_episodes_are_of_its_split(split):
    env, plain = BatchEnv(Chosen(split), 60), BatchEnv("Reach", 60)
    words = env.reset(seed=0)[1]["instruction"]
    before = plain.reset(seed=0)[1]["instruction"]
    assert np.array_equal(env.sim.mocap_pos, plain.sim.mocap_pos)  # nothing else moved
    assert (split == "all") == (words.tolist() == before.tolist())
    for i in range(60) if split != "all" else ():
        target, phrase, _, *colours = env.sim.userdata[i].astype(int)
        things = [(NAMES[c], s) for c, s in zip(colours, SCENES[0], strict=True)]
        assert split_of(things, (target,), phrase) == split
        # words that do not name what is new are of training's kind
        assert split_of_words(words[i]) in (split, "train")
    texts = {split_of_words(text) for text in words}
    assert split in texts or split == "all"


GROUNDED = [n for n, m in registry.members("envs").items() if m.constants["solved"] is None]


@pytest.mark.parametrize("name", GROUNDED)
def test_training_never_hears_what_is_held_out_whatever_the_task(name):
    heard = {}
    for split in ("all", "train"):
        _, info = BatchEnv(name, 40, split=split).reset(seed=0)
        heard[split] = " ".join(info["instruction"]).split()
    assert not set(heard["train"]) & set(HELD_COLOURS)
    if set(heard["train"]) & set(NAMES):  # it speaks of colours: without a split, of all of them
        assert set(heard["all"]) & set(HELD_COLOURS)


@pytest.mark.parametrize("split", SPLITS[1:])
def test_a_stacks_words_pick_out_two_of_four_cubes_in_every_split(split):
    env = BatchEnv("Stack", 40, split=split)
    _, info = env.reset(seed=0)
    rgba = env.sim.model_field("geom_rgba")
    for i, text in enumerate(info["instruction"]):
        which, base, phrase = env.sim.userdata[i, :3].astype(int)
        looks = [rgba[i, env.model.geom(g).id] for g in ("cube", "cube2", "cube3", "cube4")]
        looks = [NAMES[int(np.abs(RGBA - look).max(1).argmin())] for look in looks]
        named = [which, 2 + base]
        assert [looks.count(looks[k]) for k in named] == [1, 1]
        assert [text.index(looks[k]) for k in named] == sorted(text.index(looks[k]) for k in named)
        assert split_of([(look, "cube") for look in looks], named, phrase) == split
