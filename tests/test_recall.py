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


def test_what_is_believed_while_acting_is_known_at_once_and_the_rest_is_not():
    kept, (belief, action) = recall(), example(4)
    belief["stoch"][2] = 0  # nothing is believed, as in warming up
    carry = {f"belief/{k}": v.numpy() for k, v in belief.items()}
    place = np.array([40, -1, 42, 43])  # the second row is between two episodes
    kept.hear(place, action.numpy(), carry)
    found, then = kept.read(torch.tensor([40, -1, 42, 43, 41]))
    assert torch.equal(found["deter"][[0, 3]], belief["deter"][[0, 3]].half().float())
    assert torch.equal(found["stoch"][[0, 3]], belief["stoch"][[0, 3]])
    assert torch.equal(then[[0, 3]], action[[0, 3]])
    assert not found["stoch"][[1, 2, 4]].any() and not then[[1, 2, 4]].any()
    # what a model learns of a step later takes its place
    kept.write(torch.tensor([43]), *example(1, seed=1))
    assert torch.equal(kept.read(torch.tensor([43]))[1], example(1, seed=1)[1])


def test_a_policy_that_believes_nothing_leaves_nothing():
    kept = recall()
    kept.hear(np.arange(3), np.ones((3, 2), np.float32), {"seed": np.zeros(3)})
    assert not len(kept.save()["recall/tag"])


def test_steps_of_others_have_places_below_and_none_is_at_the_end():
    kept, (belief, action) = recall(), example(3)
    kept.write(torch.tensor([-2, -3, kept.slots - 2]), belief, action)  # the first and last share
    found, then = kept.read(torch.tensor([-2, -3, kept.slots - 2, -1]))
    assert not found["stoch"][0].any() and torch.equal(then[1:3], action[1:])
    two = recall()
    two.restore(kept.save())
    assert torch.equal(two.read(torch.tensor([-3]))[1], action[1:2])
    assert not two.read(torch.tensor([-1]))[1].any()
    place = torch.tensor([[-3, -4, -5], [-1, -2, -3]])
    assert torch.equal(kept.before(place)["before/action"][0], action[1])
    assert not kept.before(place)["before/stoch"][1].any()
