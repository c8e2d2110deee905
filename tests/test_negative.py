"""Negative controls fail: what learns from spoiled rewards is stopped by a gate, what is right is
not.

The world is a point on a line, pushed at random and drawn back in turn; a hundred and fifty updates
learn its rewards. That the same holds on a robot is tested by `verify` itself, marked slow.
"""

import functools

import gymnasium
import numpy as np
import pytest
import torch

from umwelten import gates, negative
from umwelten.episodes import Episodes
from umwelten.shards import write_shard
from umwelten.world_models.tdmpc2 import TDMPC2

SPACE = gymnasium.spaces.Dict({"proprio": gymnasium.spaces.Box(-4, 4, (1,), np.float32)})


def episode(rng, steps=41):
    """A point at x that an action moves by 0.4; the reward is 1 at the middle, 0 far away."""
    x, action = np.zeros(steps), np.zeros(steps)
    x[0] = rng.uniform(-1, 1)
    for t in range(steps):
        if t % 8 == 0:
            push = rng.uniform(-1, 1)
        action[t] = push if t % 8 < 4 else np.clip(-x[t] / 0.4, -1, 1) * rng.uniform(0.2, 0.8)
        if t + 1 < steps:
            x[t + 1] = x[t] + 0.4 * action[t]
    reward = 1 / (1 + x**2)
    reward[0] = 0
    at = np.arange(steps)
    return {
        "proprio": x[:, None].astype(np.float32), "action": action[:, None].astype(np.float32),
        "reward": reward.astype(np.float32), "first": at == 0, "last": at == steps - 1,
        "terminal": np.zeros(steps, bool), "valid": np.ones(steps, bool), "time": 0.1 * at,
    }  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Episodes to learn from, in two folders, and unseen ones."""
    root, rng = tmp_path_factory.mktemp("point"), np.random.default_rng(0)
    for name, count in (("a", 60), ("b", 40), ("unseen", 30)):
        (root / name).mkdir()
        write_shard(root / name, 0, "{}", [episode(rng) for _ in range(count)])
    return root


def planted(root, control):
    return negative.plant(control, [root / "a", root / "b"], root / control)


@pytest.fixture(scope="module")
def judged(folders):
    """Returns what the gates find of a model that learnt from a control, or from the truth."""

    @functools.cache
    def judge(control):
        sources = [folders / "a", folders / "b"]
        if control not in ("", "untrained"):
            sources = [planted(folders, control)]
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        model = TDMPC2(SPACE, 1, size=1, batch_size=32, lr=1e-3)
        data, rng = Episodes(sources), np.random.default_rng(0)
        for _ in range(0 if control == "untrained" else 150):
            model.update(gates.sample(model, data, rng))
        torch.set_num_threads(threads)
        unseen = Episodes(folders / "unseen")

        def make():
            return TDMPC2(SPACE, 1, size=1, batch_size=32, lr=1e-3)

        losses = [gates.held_out_loss(make, part, unseen) for part in (None, model.checkpoint())]
        seen = gates.rewards(model, unseen)
        found = (gates.loss_floor(*losses), gates.reward_accuracy(seen), gates.alignment(seen))
        return {f.gate: f for f in found}

    return judge


def test_what_learns_from_the_truth_passes(judged):
    found = judged("")
    assert [f for f in found.values() if not f.passed] == []
    assert found["reward accuracy"].figure > 0.5 and found["alignment"].figure > 0.7


@pytest.mark.parametrize(
    "control, stopped_by",
    [
        ("untrained", "loss falls"),
        ("untrained", "reward accuracy"),
        ("shuffled_rewards", "reward accuracy"),
        ("shuffled_rewards", "alignment"),
        ("early_rewards", "alignment"),
        ("late_rewards", "alignment"),
    ],
)
def test_a_control_is_stopped(judged, control, stopped_by):
    assert not judged(control)[stopped_by].passed, judged(control)


@pytest.mark.parametrize("control", ["early_rewards", "late_rewards"])
def test_only_alignment_sees_a_step_off(judged, control):
    found = judged(control)
    assert found["reward accuracy"].passed and found["loss falls"].passed
    assert found["alignment"].figure < 0.4


def test_what_is_planted_is_as_it_says(folders):
    whole = Episodes([folders / "a", folders / "b"])
    truth = [whole.episode(i)["reward"] for i in range(len(whole))]
    for control in ("early_rewards", "late_rewards", "shuffled_rewards"):
        spoiled = Episodes(planted(folders, control))
        assert len(spoiled) == len(whole)
        found = [spoiled.episode(i) for i in range(len(spoiled))]
        for i, (a, b) in enumerate(zip(found, truth, strict=True)):
            same = whole.episode(i)
            assert all(np.array_equal(a[k], same[k]) for k in a if k != "reward")
            assert a["reward"][0] == 0
            if control == "early_rewards":
                np.testing.assert_array_equal(a["reward"][1:-1], b[2:])
            if control == "late_rewards":
                np.testing.assert_array_equal(a["reward"][2:], b[1:-1])
        ours, theirs = (np.concatenate([e[1:] for e in x]) for x in (truth, _rewards(found)))
        if control == "shuffled_rewards":
            np.testing.assert_array_equal(np.sort(ours), np.sort(theirs))
            assert abs(np.corrcoef(ours, theirs)[0, 1]) < 0.1
        assert (ours != theirs).mean() > 0.5


def _rewards(episodes):
    return [e["reward"] for e in episodes]


def test_planting_again_changes_nothing_and_an_unknown_control_is_refused(folders):
    before = [p.read_bytes() for p in sorted(planted(folders, "late_rewards").glob("shard-*"))]
    again = [p.read_bytes() for p in sorted(planted(folders, "late_rewards").glob("shard-*"))]
    assert before == again
    with pytest.raises(ValueError, match="'untrained' is planted in no episodes"):
        planted(folders, "untrained")
