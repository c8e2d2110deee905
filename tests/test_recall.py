"""Recall: what was kept comes back, the unknown is nothing, few slots, acting, resumption."""

import numpy as np
import pytest
import torch

from umwelten.world_models.recall import Recall

CPU = torch.device("cpu")


def recall(room=1 << 20, deter=6):
    return Recall(deter, 3, 5, 2, room, CPU)


def example(m, seed=0):
    g = torch.Generator().manual_seed(seed)
    index = torch.randint(0, 5, (m, 3), generator=g)
    belief = {
        "deter": torch.rand(m, 6, generator=g) * 2 - 1,
        "stoch": torch.nn.functional.one_hot(index, 5).float(),
    }
    return belief, torch.rand(m, 2, generator=g) * 2 - 1


def test_what_was_kept_comes_back_and_the_unknown_is_nothing():
    kept, (belief, action) = recall(), example(4)
    kept.write(torch.tensor([0, 7, 3, 90]), belief, action)
    found, then = kept.read(torch.tensor([90, -1, 3, 4, 0]))
    for i, j in ((0, 3), (2, 2), (4, 0)):
        assert float((found["deter"][i] - belief["deter"][j]).abs().max()) < 2**-11
        assert torch.equal(found["stoch"][i], belief["stoch"][j])
        assert torch.equal(then[i], action[j])
    for i in (1, 3):
        assert not found["deter"][i].any() and not found["stoch"][i].any() and not then[i].any()


def test_of_equal_places_the_last_counts_and_a_full_memory_forgets_the_earlier_visit():
    kept, (belief, action) = recall(room=10 * (12 + 3 + 8 + 8)), example(3)
    assert kept.slots == 10
    kept.write(torch.tensor([5, 5, 8]), belief, action)
    assert torch.equal(kept.read(torch.tensor([5]))[1][0], action[1])
    kept.write(torch.tensor([18]), *example(1, seed=1))
    found, then = kept.read(torch.tensor([8, 18]))
    assert not found["stoch"][0].any() and torch.equal(then[1:], example(1, seed=1)[1])


def test_it_goes_on_with_what_was_saved_alone():
    one, two = recall(), recall()
    one.write(torch.tensor([4, 2]), *example(2))
    two.write(torch.tensor([9]), *example(1))
    two.restore(one.save())
    at = torch.tensor([2, 4, 9])
    (a, x), (b, y) = one.read(at), two.read(at)
    assert torch.equal(x, y) and all(torch.equal(a[k], b[k]) for k in a)
    assert torch.equal(one.save()["recall/tag"], torch.tensor([3, 5]))
    recall().restore(recall().save())
    with pytest.raises(ValueError, match="'deter' was kept of shape"):
        two.restore(recall(deter=7).save())


# ---- what was believed while acting


def heard(n=3, lasts=((0, 4), (1, 6), (0, 8)), steps=9):
    """Returns steps and carries of n rows: episodes end where `lasts` says, beliefs tell them."""
    told, begins = [], np.zeros(n, bool)
    begins[:2] = True
    for t in range(steps):
        last = np.array([(row, t) in lasts for row in range(n)])
        code = (np.arange(n) * 16 + t) / 64
        stoch = np.zeros((n, 3, 5), np.float32)
        stoch[:, :, t % 5] = t != 2  # at 2 nothing is believed, as in warming up
        carry = {"belief/deter": np.repeat(code[:, None], 6, 1).astype(np.float32)}
        action = np.repeat(code[:, None], 2, 1).astype(np.float32)
        told.append(({"first": begins, "last": last, "action": action},
                     carry | {"belief/stoch": stoch}))  # fmt: skip
        begins = last
    return told


def test_what_was_believed_in_an_episode_is_known_once_it_lies_somewhere():
    kept = recall()
    for step, carry in heard():
        kept.hear(step, carry)
    kept.settle(np.array([40, 5, 7, 4]))  # the first was before all
    found, action = kept.read(torch.arange(39, 57))
    want: list = [None, *range(5), *range(16, 23), *range(5, 9), None]
    want[3] = want[8] = None  # where nothing was believed
    for i, code in enumerate(want):
        told = 0 if code is None else code / 64
        assert float(found["deter"][i, 0]) == float(action[i, 0]) == told
        assert int(found["stoch"][i].sum()) == (0 if code is None else 3)
    # what a model learns of a step later takes its place
    kept.write(torch.tensor([41]), *example(1))
    assert torch.equal(kept.read(torch.tensor([41]))[1], example(1)[1])


def test_an_episode_of_another_length_is_someone_elses():
    kept = recall()
    for step, carry in heard():
        kept.hear(step, carry)
    kept.settle(np.array([5, 6, 4]))
    known = [bool(kept.read(torch.tensor([p]))[1].any()) for p in (1, 6, 12)]
    assert known == [True, False, True]


@pytest.mark.parametrize("cut", [1, 5, 7, 9])
def test_what_waits_for_its_place_is_saved_too(cut):
    one, two = recall(), recall()
    for i, (step, carry) in enumerate(heard()):
        if i == cut:
            two.restore(one.save())
        one.hear(step, carry)
        if i >= cut:
            two.hear(step, carry)
    if cut == 9:
        two.restore(one.save())
    for kept in (one, two):
        kept.settle(np.array([5, 7, 4]))
        kept.hear(*heard()[0])
    a, b = one.save(), two.save()
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_policy_that_believes_nothing_leaves_nothing():
    kept = recall()
    for step, _ in heard():
        kept.hear(step, {"seed": np.zeros(3)})
    kept.settle(np.zeros(0, int))
    assert not len(kept.save()["recall/tag"]) and "recall/hand/whose" not in kept.save()
