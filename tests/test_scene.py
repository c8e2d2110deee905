"""Scene: points scattered in a box keep apart, whatever the seed."""

import numpy as np
import pytest

from umwelten.envs import scene

LOW, HIGH = (0.32, -0.19), (0.49, 0.19)


@pytest.mark.parametrize("seed", [0, 1, 2, 15, 19, 99])
def test_points_are_drawn_anew_where_the_first_leave_no_room(seed):
    """With the first five seeds the first three points leave no room for a fourth."""
    points = scene.scatter(np.random.default_rng(seed), 4, LOW, HIGH, apart=0.14)
    apart = np.linalg.norm(points[:, None] - points, axis=-1)[~np.eye(4, dtype=bool)]
    assert apart.min() >= 0.14
    assert (points >= LOW).all() and (points <= HIGH).all()


def test_a_box_without_room_is_refused():
    with pytest.raises(ValueError, match=r"no room for 9 points 0\.2 m apart"):
        scene.scatter(np.random.default_rng(0), 9, LOW, HIGH, apart=0.2)
