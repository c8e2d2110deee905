"""Reward shapes agree with the suite's own, number by number, and refuse what makes none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umwelten.envs.rewards import SHAPES, distance, tolerance

X = np.concatenate([np.linspace(-6, 6, 601), [0.0, 1e-12, -1e-12, 1e3, -1e3]])


def theirs(*arguments, **keywords):
    rewards = pytest.importorskip("dm_control.utils.rewards")
    return rewards.tolerance(*arguments, **keywords)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bounds", [(0, 0), (-1, 0.5), (2, 3), (-np.inf, 0), (1, np.inf)])
@pytest.mark.parametrize("margin", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("at_margin", [0.1, 0.5, 0.01])
def test_tolerance_is_the_suites(shape, bounds, margin, at_margin):
    ours = tolerance(X, *bounds, margin=margin, shape=shape, at_margin=at_margin)
    told = {"margin": margin, "sigmoid": shape, "value_at_margin": at_margin}
    np.testing.assert_allclose(ours, theirs(X, bounds, **told), rtol=1e-12, atol=1e-15)
    assert ours.dtype == np.float64 and ours.min() >= 0 and ours.max() <= 1


@pytest.mark.parametrize("shape", ["quadratic", "linear"])
def test_shapes_that_end_may_end_at_the_margin(shape):
    ours = tolerance(X, margin=1, shape=shape, at_margin=0)
    told = {"margin": 1, "sigmoid": shape, "value_at_margin": 0}
    np.testing.assert_allclose(ours, theirs(X, (0, 0), **told), atol=1e-15)
    assert (ours[np.abs(X) >= 1] == 0).all() and ours[X == 0].tolist() == [1, 1]


@settings(max_examples=200, deadline=None)
@given(
    st.floats(-10, 10), st.floats(0, 5), st.floats(0.01, 5), st.floats(0.01, 0.99),
    st.sampled_from(sorted(SHAPES)), st.floats(-50, 50),
)  # fmt: skip
def test_tolerance_is_the_suites_wherever(low, width, margin, at_margin, shape, x):
    ours = tolerance(np.array([x]), low, low + width, margin, shape, at_margin)[0]
    told = {"margin": margin, "sigmoid": shape, "value_at_margin": at_margin}
    assert ours == pytest.approx(theirs(x, (low, low + width), **told), rel=1e-9, abs=1e-15)
    assert 0 <= ours <= 1


@pytest.mark.parametrize("shape", SHAPES)
def test_the_value_at_the_margin_is_the_one_asked_for(shape):
    found = tolerance(np.array([-2.0, 3.0]), 0, 1, margin=2, shape=shape, at_margin=0.3)
    np.testing.assert_allclose(found, 0.3)


def test_arrays_of_any_shape_and_numbers_come_through():
    x = np.arange(24.0).reshape(2, 3, 4)
    out = tolerance(x, high=3, margin=5)
    assert out.shape == x.shape
    assert np.array_equal(out.ravel(), tolerance(x.ravel(), high=3, margin=5))
    assert float(tolerance(1.0, high=1)) == 1.0 and float(tolerance(1.1, high=1)) == 0.0


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="low <= high"):
        tolerance(X, 1, 0)
    with pytest.raises(ValueError, match="margin >= 0"):
        tolerance(X, margin=-1)
    for wrong in (0, 1, -0.1, 1.1, np.nan):  # a Gaussian never falls to 0
        with pytest.raises(ValueError, match="at_margin"):
            tolerance(X, margin=1, at_margin=wrong)
    with pytest.raises(ValueError, match="no reward shape 'gausian'; there are gaussian"):
        tolerance(X, margin=1, shape="gausian")


def test_a_nan_earns_nothing():
    with np.errstate(invalid="ignore"):
        assert not (tolerance(np.array([np.nan]), margin=0) > 0).any()


def test_distances_are_euclidean():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 50, 3))
    np.testing.assert_allclose(distance(a, b), np.linalg.norm(a - b, axis=1), rtol=1e-12)
    assert distance(a, a).tolist() == [0.0] * 50
