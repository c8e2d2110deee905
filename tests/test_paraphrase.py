"""Other words ask for the same, and fit where words must fit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umwelten.envs.env import BatchEnv
from umwelten.envs.language import LENGTH, NAMES, NOUNS, Description, Instruction, understand
from umwelten.envs.paraphrase import ASIDES, FRAMES, paraphrase

THING = st.builds(Description, st.sampled_from(list(NOUNS)), st.sampled_from(NAMES))


def unframed(text):
    """All that a text can be once its frame and its aside are taken off."""
    texts = {text}
    for frames in (FRAMES, ASIDES):
        for frame in frames:
            before, after = frame.split("{}")
            texts |= {
                t[len(before) : len(t) - len(after)]
                for t in texts
                if t.startswith(before) and t.endswith(after)
            }
    return texts


def meanings(text):
    found = []
    for one in unframed(text):
        try:
            found.append(understand(one))
        except ValueError:
            continue
    return found


@given(st.sampled_from(["place", "push"]), THING, THING, st.integers(0, 4), st.integers(0, 2**32))
def test_it_asks_for_the_same(verb, a, b, level, seed):
    said = Instruction(verb, a, "on", (b,))
    told = paraphrase(said.text(), level, np.random.default_rng(seed))
    assert said in meanings(told)
    assert len(told.encode()) <= LENGTH
    assert (told == said.text()) == (level == 0)


def test_levels_go_further_and_further():
    text = "put the red cube on the blue disc"
    told = [paraphrase(text, level, np.random.default_rng(4)) for level in range(6)]
    assert len(set(told)) == 6 and told[0] == text and text in told[1]
    assert "cube" not in told[2] and "disc" not in told[2]
    assert sorted(told[5]) == sorted(told[4])  # letters exchanged, none lost
    assert sum(x != y for x, y in zip(told[4], told[5], strict=True)) == 2


@given(st.text(max_size=LENGTH).filter(lambda t: len(t.encode()) <= LENGTH), st.integers(0, 5))
def test_any_text_passes_and_fits(text, level):
    told = paraphrase(text, level, np.random.default_rng(0))
    assert len(told.encode()) <= LENGTH and (text or told == "")


def test_a_world_says_it_so_and_says_so_again():
    plain, env = BatchEnv("PickPlace", 20), BatchEnv("PickPlace", 20, vary=("language",))
    texts, told = (e.reset(seed=0)[1]["instruction"] for e in (plain, env))
    levels = env.variation.values[:, 0]
    assert set(levels) == set(range(6))
    for text, other, level in zip(texts, told, levels, strict=True):
        assert (text == other) == (level == 0)
    snapshot = env.save()
    env.reset(seed=50)
    env.load(snapshot)
    assert env.words().tolist() == told.tolist()


def test_a_task_without_words_refuses():
    with pytest.raises(ValueError, match="CartpoleSwingup has no words"):
        BatchEnv("CartpoleSwingup", 1, vary=("language",))
