"""The gates open for what is right and stay shut for what is wrong, each by a planted fault."""

import gymnasium
import numpy as np
import pytest
import torch

from umwelten import gates
from umwelten.world_models.tdmpc2 import TDMPC2


def wave(rng, windows=400, h=5, episodes=20):
    """Rewards that rise and fall at random along time, and those beside them."""
    paid = rng.normal(size=(windows, h + 2)).cumsum(1)
    episode = np.sort(rng.integers(0, episodes, windows))
    return paid[:, 1:-1], paid[:, :-2], paid[:, 2:], episode


def seen(foreseen, parts):
    return gates.Rewards(foreseen, *parts)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_rewards_that_are_nearly_right_pass(rng):
    parts = wave(rng)
    noisy = seen(parts[0] + rng.normal(0, 0.3, parts[0].shape), parts)
    accuracy, alignment = gates.reward_accuracy(noisy), gates.alignment(noisy)
    assert accuracy.passed and 0.5 < accuracy.figure < 1
    assert alignment.passed and 0.5 < alignment.figure < 1


def test_the_explained_share_is_what_was_planted(rng):
    parts = wave(rng, windows=20_000)
    plain = ((parts[0] - parts[0].mean(0)) ** 2).mean(0)
    noise = rng.normal(size=parts[0].shape) * np.sqrt(0.25 * plain)
    found = gates.reward_accuracy(seen(parts[0] + noise, parts))
    assert found.figure == pytest.approx(0.75, abs=0.02)


def test_rewards_that_say_nothing_fail(rng):
    parts = wave(rng)
    shuffled = rng.permutation(parts[0])
    for foreseen in (shuffled, np.zeros_like(shuffled), np.full_like(shuffled, parts[0].mean())):
        assert not gates.reward_accuracy(seen(foreseen, parts)).passed
        assert not gates.alignment(seen(foreseen, parts)).passed


def test_right_rewards_at_one_step_ahead_alone_are_not_enough(rng):
    parts = wave(rng)
    foreseen = parts[0].copy()
    foreseen[:, -1] = rng.permutation(foreseen[:, -1])
    found = gates.reward_accuracy(seen(foreseen, parts))
    assert not found.passed and found.figure < 0.1


@pytest.mark.parametrize("beside", [1, 2], ids=["late", "early"])
def test_rewards_a_step_off_are_accurate_yet_do_not_align(rng, beside):
    """The fault that accuracy cannot see: rewards change little from one step to the next."""
    *parts, episode = wave(rng)
    level = 5 * rng.normal(size=(len(episode), 1))
    parts = *(part + level for part in parts), episode
    foreseen = parts[beside] + rng.normal(0, 0.1, parts[0].shape)
    off, right = seen(foreseen, parts), seen(parts[0] + 0.1, parts)
    assert gates.reward_accuracy(off).passed and gates.reward_accuracy(right).passed
    assert not gates.alignment(off).passed and gates.alignment(off).figure < 0.1
    assert gates.alignment(right).passed  # and a constant error says nothing of time


def test_rewards_that_never_change_are_no_evidence(rng):
    same = np.ones((50, 5))
    constant = gates.Rewards(same, same, same, same, np.arange(50) // 5)
    assert not gates.reward_accuracy(constant).passed and not gates.alignment(constant).passed


@pytest.mark.parametrize("first, last, passed", [(2, 1.7, True), (2, 1.9, False), (2, 3, False)])
def test_the_loss_has_to_fall_by_a_tenth(first, last, passed):
    found = gates.loss_floor(first, last)
    assert found.passed is passed and found.figure == pytest.approx(1 - last / first)


def test_a_loss_that_is_no_number_fails():
    assert not gates.loss_floor(2.0, float("nan")).passed


def score(value, half):
    return {"return": value, "return_interval": (value - half, value + half)}


def test_an_agent_has_to_be_clearly_better_than_chance():
    random = score(5, 2)
    assert gates.beats_random(score(10, 2), random, score(40, 1)).passed
    assert not gates.beats_random(score(10, 4), random, None).passed
    assert not gates.beats_random(score(4, 1), random, None).passed


class Recorded:
    """Episodes of given actions."""

    def __init__(self, *actions):
        self.actions = actions

    def __len__(self):
        return len(self.actions)

    def episode(self, i):
        return {"action": np.array(self.actions[i], np.float32)}


@pytest.mark.parametrize(
    "metrics, tensor, action, passed",
    [
        (1.0, 1.0, 1.0, True),
        (float("nan"), 1.0, 0.5, False),
        (1.0, float("inf"), 0.5, False),
        (1.0, 1.0, float("nan"), False),
        (1.0, 1.0, 1.5, False),
    ],
)
def test_one_number_that_is_none_fails(metrics, tensor, action, passed):
    lines = [{"kind": "train", "updates": 1, "loss": metrics}, {"kind": "score", "return": 0.0}]
    tensors = {"w": torch.tensor([0.0, tensor]), "count": torch.tensor([1])}
    found = gates.finite(lines, tensors, Recorded([[0.0]], [[action]]))
    assert found.passed is passed and found.figure == (0 if passed else 1)


# ---- saved and loaded

SPACE = gymnasium.spaces.Dict({"proprio": gymnasium.spaces.Box(-1, 1, (3,), np.float32)})


def make():
    return TDMPC2(SPACE, 2, size=1, batch_size=4)


def windows(model, b=4):
    rng = torch.Generator().manual_seed(0)
    lead, no = (b, model.window), torch.zeros(b, model.window, dtype=torch.bool)
    return {
        "proprio": torch.rand(*lead, 3, generator=rng), "reward": torch.rand(lead, generator=rng),
        "action": torch.rand(*lead, 2, generator=rng) * 2 - 1,
        "first": no, "last": no, "terminal": no,
    }  # fmt: skip


def test_a_model_is_the_same_after_it_was_saved(tmp_path):
    model = make()
    model.update(windows(model))
    found = gates.parity(make, model, windows(model), tmp_path)
    assert found.passed and found.figure == 0


@pytest.mark.parametrize("lost", ["model/scale", "adam/policy.0.weight/exp_avg", "chance"])
def test_what_a_checkpoint_loses_is_seen(tmp_path, lost):
    model = make()
    model.update(windows(model))
    whole = model.checkpoint()
    lost = next(k for k in whole if k.startswith(lost.rpartition(".0")[0] or lost))
    model.checkpoint = lambda: TDMPC2.checkpoint(model) | {lost: whole[lost] * 0}
    found = gates.parity(make, model, windows(model), tmp_path)
    assert not found.passed and found.figure > 0


def test_one_seed_in_five_may_fail_to_learn_but_none_may_be_unsound():
    good = [gates.Finding(g, True, 1.0, 0, "") for g in ("finite", "real return")]
    weak = [good[0], gates.Finding("real return", False, 0.0, 0, "weak")]
    broken = [gates.Finding("finite", False, 3.0, 0, "broken"), good[1]]
    for bad, verdicts in ((weak, [True, True, True]), (broken, [False, True, True])):
        found = gates.over_seeds([good, bad, good, good, good])
        assert [g["passed"] for g in found] == verdicts
        assert found[-1]["figures"] == [0.8] and len(found[0]["figures"]) == 5
    assert [g["passed"] for g in gates.over_seeds([good, weak, good])] == [True, False, False]
    assert gates.over_seeds([good, weak])[1]["reason"] == "weak"
