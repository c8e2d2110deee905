"""What words mean in a scene is found again; words that could mean another thing are never said."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from umwelten.envs.language import NAMES, RELATIONS, Description, Instruction, read, understand
from umwelten.envs.reference import (
    KINDS,
    SIMPLE,
    counterfactuals,
    describe,
    holds,
    means,
    others,
    resolve,
)
from umwelten.envs.relations import scene

SHAPES = ("ball", "cube", "cylinder")
GRID = st.tuples(st.integers(-5, 5), st.integers(-5, 5))


@st.composite
def scenes(draw, least=2):
    spots = draw(st.lists(GRID, min_size=least, max_size=6, unique=True))
    places = np.array([(0.4 + 0.05 * x, 0.05 * y, 0.02) for x, y in spots])
    shapes = [draw(st.sampled_from(SHAPES)) for _ in spots]
    colours = [draw(st.sampled_from(NAMES)) for _ in spots]
    half = np.array([[draw(st.sampled_from([0.015, 0.02, 0.03]))] for _ in spots])
    return scene(places, shapes, colours, half)


@settings(deadline=None)
@given(scenes(), st.integers(0, 5), st.integers(0, 2**32), st.integers(0, 2), st.data())
def test_words_mean_the_thing_they_were_made_for_and_no_other(here, which, seed, form, data):
    which %= here.shape.shape[1]
    kinds = data.draw(st.sampled_from([KINDS, *((k,) for k in KINDS)]))
    try:
        said = describe(here, 0, which, np.random.default_rng(seed), kinds)
    except ValueError as error:
        assert "tell the" in str(error)
        return
    assert resolve(read(said.text(form)), here)[0].nonzero()[0].tolist() == [which]


@settings(deadline=None)
@given(scenes(), st.integers(0, 5), st.integers(0, 2**32))
def test_what_tells_apart_by_looks_is_always_found_and_twins_never(here, which, seed):
    which %= here.shape.shape[1]
    looks = list(zip(here.shape[0].tolist(), here.colour[0].tolist(), strict=True))
    rng = np.random.default_rng(seed)
    if looks.count(looks[which]) == 1:
        assert means(describe(here, 0, which, rng, SIMPLE), here, 0) == which
    else:
        with pytest.raises(ValueError, match="no words of the kinds plain, colour, shape tell"):
            describe(here, 0, which, rng, SIMPLE)


def test_every_kind_of_description_comes_up():
    here = scene(
        [(0.4, 0.2, 0.02), (0.4, 0.0, 0.02), (0.4, -0.2, 0.02), (0.5, 0.1, 0.03)],
        ["cube", "cube", "cube", "ball"],
        ["red", "red", "blue", "green"],
        [[0.02], [0.02], [0.02], [0.03]],
    )
    rng = np.random.default_rng(0)
    said = {describe(here, 0, k, rng).text() for k in range(4) for _ in range(300)}
    expected = {
        "the leftmost cube", "the second cube from the left", "the rightmost one", "the blue cube",
        "the cube that is not red", "the ball", "the green one", "the biggest one",
        "the second cube from the right", "the cube between the green ball and the blue cube",
    }  # fmt: skip
    assert expected - said <= {"the cube between the green ball and the blue cube"}
    assert any(" of the green ball" in text for text in said)
    assert "the red cube" not in said and "the cube" not in said


def test_rows_are_resolved_each_for_itself_and_doubt_means_nothing():
    one = scene([(0.4, 0.1, 0.02), (0.4, 0.0, 0.02)], ["cube", "cube"], ["red", "blue"])
    two = scene([(0.4, 0.0, 0.02), (0.4, 0.1, 0.02)], ["cube", "cube"], ["red", "blue"])
    near = scene([(0.4, 0.0, 0.02), (0.5, 0.01, 0.02)], ["cube", "cube"], ["red", "blue"])
    both = type(one)(*(np.concatenate(f) for f in zip(one, two, near, strict=True)))
    left = Description("cube", rank=("left", 1))
    assert resolve(left, both).tolist() == [[True, False], [False, True], [False, False]]
    side = Description("cube", relation="left of", landmarks=(Description(colour="blue"),))
    assert resolve(side, both).tolist() == [[True, False], [False, False], [False, False]]
    # a landmark that could be either names none
    vague = Description("cube", relation="left of", landmarks=(Description("cube"),))
    assert not resolve(vague, both).any()
    size = Description("cube", rank=("big", 1))
    assert not resolve(size, both).any()
    bigger = both._replace(half=both.half * np.array([1.0, 1.3])[:, None])
    assert resolve(size, bigger).tolist() == [[False, True]] * 3


def test_instructions_hold_when_the_scene_says_so():
    here = scene(
        [(0.4, 0.1, 0.02), (0.4, -0.1, 0.022), (0.4, -0.1, 0.001), (0.5, 0.1, 0.12)],
        ["cube", "cylinder", "disc", "ball"],
        ["red", "green", "blue", "red"],
        [[0.02] * 3, [0.02] * 3, [0.045, 0.045, 0.001], [0.02] * 3],
        tool=(0.4, 0.12, 0.03),
    )
    truths = {
        "reach the cube": True,
        "touch the cylinder": False,
        "put the green cylinder on the blue disc": True,
        "put the can anywhere but on the mat": False,
        "put the cube anywhere but on the blue disc": True,
        "put the cube on the blue disc": False,
        "place the cube left of the cylinder": True,
        "place the cylinder left of the cube": False,
        "put the disc near the green one": True,
        "lift the ball": True,
        "lift the cube": False,
        "lift the red one": False,  # there are two: it asks for nothing that could hold
    }
    assert {text: bool(holds(understand(text), here)[0]) for text in truths} == truths


@settings(deadline=None, max_examples=50)
@given(scenes(least=3), st.sampled_from(["reach", "lift", "place", "push", "arrange"]), st.data())
def test_counterfactuals_are_valid_other_wishes_of_another_truth(here, verb, data):
    here = here._replace(tool=here.place[:, 0] + 0.01)
    looks = list(zip(here.shape[0].tolist(), here.colour[0].tolist(), strict=True))
    assume(len(set(looks)) == len(looks))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    a, b = (describe(here, 0, k, rng, SIMPLE) for k in (0, 1))
    relation = {"reach": None, "lift": None, "arrange": "behind"}.get(verb, "on")
    said = Instruction(verb, a, relation, (b,) if relation else ())
    every = others(said, here, 0)
    k = len(looks)
    count = {"reach": k, "lift": k, "arrange": k * (k - 1) * 13}.get(verb, k * (k - 1))
    assert len(every) == count - 1 and said not in every
    against = counterfactuals(said, here, 0)
    for other in every:
        assert understand(other.text()) == other
        assert means(other.thing, here, 0) is not None
        assert (other in against) == (holds(other, here)[0] != holds(said, here)[0])
    if verb == "reach":
        assert holds(said, here)[0] and against  # the tool is at the first thing alone
        assert not any(holds(other, here)[0] for other in against)


def test_all_relations_can_be_said_of_a_thing():
    cup = scene(
        [(0.4, 0, 0.03), (0.4, 0, 0.03), (0.4, 0.2, 0.03), (0.4, -0.2, 0.03), (0.6, 0, 0.001)],
        ["ball", "bowl", "cube", "cylinder", "disc"],
        ["red", "blue", "green", "red", "blue"],
        [[0.02] * 3, [0.05] * 3, [0.02] * 3, [0.02] * 3, [0.04, 0.04, 0.001]],
    )
    cup.place[0, 2] = 0.6, 0, 0.022  # the cube lies on the disc
    rng = np.random.default_rng(1)
    used = {describe(cup, 0, k, rng, ("relation",)).relation for k in range(5) for _ in range(100)}
    assert used >= set(RELATIONS) - {"between"}
