"""Words come back as they went in, fit where they must, and pick out one thing."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umwelten import registry
from umwelten.envs.env import BatchEnv
from umwelten.envs.language import (
    CODE,
    COLOURS,
    ENDS,
    LENGTH,
    NAMES,
    NOUNS,
    RELATIONS,
    RGBA,
    VERBS,
    Description,
    Instruction,
    decode,
    described,
    encode,
    landmarks,
    read,
    readings,
    refer,
    understand,
)

SHAPES = ("ball", "cube", "cylinder")
ARMED = [n for n in registry.members("envs") if registry.load("envs", n).robots]
MARKS = st.builds(
    Description, st.sampled_from([None, *NOUNS]), st.sampled_from([None, *NAMES])
)  # what a landmark can be
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(TEXT.filter(lambda t: len(t.encode()) <= LENGTH))
def test_text_comes_back(text):
    codes = encode(text)
    assert codes.dtype == np.uint8 and codes.shape == (LENGTH,)
    assert decode(codes) == text
    assert not codes[len(text.encode()) :].any()


@given(st.integers(0, 2 * LENGTH), st.sampled_from(["a", "ä", "語", "🦾"]))
def test_exactly_what_is_too_long_is_refused(count, letter):
    text = letter * count
    if len(text.encode()) <= LENGTH:
        assert decode(encode(text)) == text
    else:
        with pytest.raises(ValueError, match=f"at most {LENGTH} bytes, got {len(text.encode())}"):
            encode(text)


def test_what_could_not_come_back_is_refused():
    with pytest.raises(ValueError, match="zero"):
        encode("reach\0")


def test_codes_are_no_view_of_anything():
    one, two = encode("reach"), encode("reach")
    one[0] = 0
    assert decode(two) == "reach"


def fits(words, colour, shape):
    _, *adjective, noun = words.split()
    return adjective in ([], [colour]) and noun in ("one", shape)


@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(SHAPES)), min_size=1, max_size=5),
    st.integers(0, 4),
    st.integers(0, 2),
)
def test_words_pick_out_the_one_that_is_meant(things, which, form):
    which %= len(things)
    if things.count(things[which]) > 1:
        with pytest.raises(ValueError, match=f"two things are a {' '.join(things[which])}"):
            refer(which, things, form)
        return
    words = refer(which, things, form)
    assert [k for k, thing in enumerate(things) if fits(words, *thing)] == [which]


def test_each_form_is_used_where_it_suffices():
    things = [("red", "cube"), ("blue", "ball"), ("blue", "cube")]
    said = {
        (which, form): refer(which, things, form)
        for which, form in itertools.product(range(3), range(3))
    }
    assert [said[0, f] for f in range(3)] == ["the red cube", "the red one", "the red cube"]
    assert [said[1, f] for f in range(3)] == ["the blue ball", "the blue ball", "the ball"]
    assert {said[2, f] for f in range(3)} == {"the blue cube"}


def test_colours_are_told_apart_by_eye():
    assert RGBA.shape == (len(COLOURS), 4) and (RGBA[:, 3] == 1).all()
    gaps = np.abs(RGBA[:, None, :3] - RGBA[None, :, :3]).sum(2) + 9 * np.eye(len(RGBA))
    assert gaps.min() > 0.3


# ---- what can be said, and its text


@st.composite
def descriptions(draw):
    mark = draw(MARKS)
    rank = draw(st.none() | st.tuples(st.sampled_from(list(ENDS)), st.integers(1, 5)))
    if rank and rank[0] in ("big", "small"):
        rank = rank[0], 1
    relation = draw(st.sampled_from([None, *RELATIONS]))
    near = tuple(draw(MARKS) for _ in range(landmarks(relation)))
    without = draw(st.sampled_from([None, *NAMES]))
    return Description(mark.shape, mark.colour, without, rank, relation, near)


@st.composite
def instructions(draw):
    verb = draw(st.sampled_from(list(VERBS)))
    relation, negated = {"reach": None, "lift": None}.get(verb, "on"), False
    if verb == "arrange":
        relation, negated = draw(st.sampled_from(list(RELATIONS))), draw(st.booleans())
        negated = negated or relation == "on"
    near = tuple(draw(MARKS) for _ in range(landmarks(relation)))
    return Instruction(verb, draw(descriptions()), relation, near, negated)


@given(descriptions(), st.integers(0, 5))
def test_a_description_is_read_as_it_was_said(said, form):
    assert read(said.text(form)) == said
    assert described(said.code()) == said
    assert len(said.code()) == CODE and described(np.array(said.code(), float)) == said


@given(instructions(), st.integers(0, 5), st.integers(0, 2))
def test_an_instruction_has_one_reading_and_that_is_what_was_meant(said, phrase, form):
    assert readings(said.text(phrase, form)) == [said]
    assert understand(said.text(phrase, form)) == said


def test_every_word_and_phrase_is_used_and_forms_are_other_words_for_the_same():
    cube = Description("cube", "red", relation="near", landmarks=(Description("ball"),))
    texts = [cube.text(form) for form in range(3)]
    assert texts[0] == "the red cube near the ball"
    assert texts[1] == "the red block close to the sphere" and len(set(texts)) == 3
    where = Instruction("arrange", Description("cube", "red"), "on", (Description("disc"),), True)
    assert where.text() == "put the red cube anywhere but on the disc"
    assert Description("cube", rank=("left", 2)).text() == "the second cube from the left"
    assert Description(rank=("left", 1), without="red").text() == (
        "the leftmost one that is not red"
    )
    for phrases in VERBS.values():
        assert len(set(phrases)) == len(phrases) == 6
    words = [word for names in NOUNS.values() for word in names]
    assert len(set(words)) == len(words)  # no word means two shapes


@pytest.mark.parametrize(
    "text, told",
    [
        ("reach the red cub", "'cub'; did you mean 'cube'"),
        ("raech the red cube", "'raech'; did you mean 'reach'"),
        ("reach the third cube", "is not understood"),  # from where?
        ("put the red cube", "is not understood"),
        ("put the cube on the second disc from the left", "is not understood"),
        ("", "is not understood"),
    ],
)
def test_what_is_not_of_the_grammar_is_refused_with_the_nearest_word(text, told):
    assert readings(text) == []
    with pytest.raises(ValueError, match=told):
        understand(text)


def test_the_reader_tells_apart_what_differs():
    a, b = understand("put the red cube on the disc"), understand("put the red cube on the ball")
    assert a != b and a.landmarks != b.landmarks
    assert understand("put the can behind the ball").relation == "behind"
    with pytest.raises(ValueError, match="is no description"):
        read("the red cube left of")


SAID = "|".join(NAMES)


@pytest.mark.parametrize("name", ARMED)
def test_the_grammar_knows_what_every_tabletop_task_speaks_of(name):
    _, info = BatchEnv(name, 12).reset(seed=0)
    for text in info["instruction"]:
        for said in re.findall(rf"the (?:{SAID}) \w+", text):
            thing = read(said.removesuffix("s") if said.endswith(("cubes", "balls")) else said)
            assert thing.colour in said and (thing.shape is None or thing.shape in said)
