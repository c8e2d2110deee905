"""Words come back as they went in, fit where they must, and pick out one thing."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umwelten.envs.language import COLOURS, LENGTH, NAMES, RGBA, decode, encode, refer

SHAPES = ("ball", "cube", "cylinder")
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
