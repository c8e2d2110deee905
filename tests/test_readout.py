"""Readouts find what is there, nothing where nothing is, and say how sure that is."""

import math

import pytest
import torch

from umwelten.world_models.readout import (
    STRENGTHS,
    Classes,
    Probes,
    Quantity,
    Ridge,
    Scale,
    target_of,
)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=rng(seed), dtype=torch.float64)


def halves(x, ys):
    """Returns (fit, validate, test) of rows, as Probes takes them; the last third is the test."""
    n = len(x) // 3
    cut = [slice(0, n), slice(n, 2 * n), slice(2 * n, None)]
    return [(x[c], {k: v[c] for k, v in ys.items()}) for c in cut]


def judged(x, ys, episodes=10):
    fit, validate, (xs, truth) = halves(x, ys)
    episode = torch.arange(len(xs)) % episodes
    return Probes(fit, validate).judge(xs, truth, episode)


@pytest.mark.parametrize("m, d", [(50, 7), (20, 33)])
def test_ridge_is_the_solution_of_its_normal_equations(m, d):
    x, y = normal(m, d) * torch.linspace(0.1, 9, d) + 3, normal(m, 4, seed=1) + 5
    ridge = Ridge(x, y)
    z = (x - x.mean(0)) / x.std(0, correction=0)
    for strength in STRENGTHS:
        square = z.T @ z / m + strength * torch.eye(d, dtype=torch.float64)
        weight = torch.linalg.solve(square, z.T @ (y - y.mean(0)) / m)
        torch.testing.assert_close(
            ridge.predict(x, strength), z @ weight + y.mean(0), rtol=1e-6, atol=1e-6
        )


def test_ridge_finds_a_linear_map_and_a_great_strength_only_the_mean():
    x, new, weight = normal(80, 5), normal(9, 5, seed=2), normal(5, 3, seed=1)
    ridge = Ridge(x, x @ weight + 4)
    torch.testing.assert_close(ridge.predict(new, 1e-12), new @ weight + 4)
    far = ridge.predict(new, 1e12)
    torch.testing.assert_close(far, (x @ weight + 4).mean(0).expand(9, 3))
    with pytest.raises(ValueError, match="no vectors"):
        Ridge(x[:0], x[:0])


def test_constants_are_dropped_not_divided_by():
    x = torch.cat([normal(30, 2), torch.full((30, 1), 7.0), normal(30, 1, seed=3) * 1e-9], 1)
    scale = Scale.of(x)
    assert scale.live.tolist() == [True, True, False, False]
    assert scale.apply(x)[:, 2:].abs().max() == 0 and torch.isfinite(scale.apply(x)).all()
    assert torch.isfinite(Ridge(x, x).predict(x, 1e-6)).all()


def test_a_planted_leak_is_found():
    x = normal(600, 20)
    ys = {
        "place": x[:, :3] @ normal(3, 2, seed=1),
        "touch": (x[:, 4:5] > 0),
        "kind": (x[:, 5:6] > 0).int() + 2 * (x[:, 6:7] > 0).int(),
    }
    found = judged(x, ys)
    assert found["place"].score > 0.999 and found["place"].chance == 0
    assert found["touch"].score > 0.93 and found["touch"].chance == pytest.approx(0.5)
    assert found["kind"].score > 0.85 and found["kind"].chance == pytest.approx(0.25)
    assert found["place"].measure == "R²" and found["touch"].measure == "balanced accuracy"


def test_shuffled_labels_fall_to_chance():
    x = normal(900, 20)
    order = torch.randperm(len(x), generator=rng(5))
    ys = {"place": x[:, :3][order], "touch": (x[:, 4:5] > 0)[order], "rare": (x[:, :1] > 1)[order]}
    found = judged(x, ys)
    assert abs(found["place"].score) < 0.03
    assert abs(found["touch"].score - 0.5) < 0.08 and abs(found["rare"].score - 0.5) < 0.12


def test_a_random_belief_knows_nothing():
    x = normal(900, 30, seed=9)
    ys = {"place": normal(900, 3), "kind": torch.randint(0, 4, (900, 1), generator=rng(1))}
    found = judged(x, ys)
    assert abs(found["place"].score) < 0.03 and abs(found["kind"].score - 0.25) < 0.08


def test_a_rare_class_counts_like_a_frequent_one():
    x = normal(3000, 4)
    rare = (x[:, :1] > 1.6).int()  # one in eighteen
    assert rare.double().mean() < 0.07
    found = judged(x, {"rare": rare})["rare"]
    assert found.score > 0.9 and found.chance == pytest.approx(0.5)
    # to call everything frequent is chance
    target = Classes(rare)
    read = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(3000, 2)
    target._centres = [torch.eye(2, dtype=torch.float64)]
    assert target.score(target.sums(read, rare).sum(0)) == pytest.approx(0.5)


def test_values_never_fitted_are_not_judged_and_what_does_not_vary_is_left_out():
    x = normal(90, 3)
    kind = (x[:, :1] > 0).int()
    kind[60:70] = 7  # of the test alone
    ys = {"kind": kind, "same": torch.ones(90, 2), "never": torch.zeros(90, 1, dtype=torch.bool)}
    found = judged(x, ys)
    assert found.keys() == {"kind"} and found["kind"].chance == pytest.approx(0.5)
    assert found["kind"].score > 0.7
    empty = Probes((x, {"same": ys["same"]}), (x, {"same": ys["same"]}))
    assert empty.judge(x, {"same": ys["same"]}, torch.zeros(90, dtype=torch.int64)) == {}


def test_integers_are_classes_as_long_as_they_are_few():
    assert isinstance(target_of(torch.arange(40)[:, None]), Quantity)
    assert isinstance(target_of(torch.arange(40)[:, None] % 5), Classes)
    assert isinstance(target_of(torch.zeros(4, 2, dtype=torch.bool)), Classes)


def test_the_strength_is_the_one_that_validates_best():
    x = normal(300, 90)
    ys = {"y": x[:, :1] + 3 * normal(300, 1, seed=1)}
    fit, validate, (xs, truth) = halves(x, ys)
    chosen = Probes(fit, validate)
    ridge = Ridge(fit[0], fit[1]["y"])
    missed = [(ridge.predict(validate[0], s) - validate[1]["y"]).square().sum() for s in STRENGTHS]
    assert chosen.strengths["y"] == STRENGTHS[int(torch.stack(missed).argmin())]
    found = chosen.judge(xs, truth, torch.arange(100) % 5)["y"].score
    read = ridge.predict(xs, STRENGTHS[0])  # all but unpenalised
    loose = 1 - float((read - truth["y"]).square().sum() / truth["y"].square().sum())
    assert found > -0.1 and found > loose + 1


def test_quantities_come_back_in_their_units():
    x = normal(90, 4)
    y = torch.cat([x[:, :1] * 100 + 7, torch.full((90, 1), 3.0)], 1)
    fit, validate, (xs, truth) = halves(x, {"y": y})
    torch.testing.assert_close(Probes(fit, validate).values(xs)["y"], truth["y"], rtol=1e-3, atol=1)


def test_pseudo_values_are_those_of_leaving_each_episode_out():
    x = normal(240, 6)
    ys = {"y": x[:, :1] + 0.5 * normal(240, 1, seed=1), "c": (x[:, 1:2] + normal(240, 1) > 0)}
    fit, validate, (xs, truth) = halves(x, ys)
    probes, episode = Probes(fit, validate), torch.arange(80) // 16
    whole = probes.judge(xs, truth, episode)
    for name, reading in whole.items():
        for e in range(5):
            keep = episode != e
            rest = probes.judge(
                xs[keep], {k: v[keep] for k, v in truth.items()}, (episode > e)[keep] * 1
            )
            expected = 5 * reading.score - 4 * rest[name].score
            assert math.isclose(float(reading.pseudo[e]), expected, abs_tol=1e-9)
