"""Open-loop errors are what closed forms and the simulator say they are, and controls fail."""

import numpy as np
import pytest
import torch

from umwelten.agents.policy import Random
from umwelten.envs.env import BatchEnv
from umwelten.episodes import Episodes, Recorder
from umwelten.rollout import rollout
from umwelten.world_models import foresight
from umwelten.world_models.measures import Measured, Part
from umwelten.world_models.model import WorldModel
from umwelten.world_models.simulator import SimulatorModel

TURN = torch.tensor([[0.8, -0.6], [0.6, 0.8]], dtype=torch.float64)  # a rotation: errors stay
SEEN_AS = torch.tensor([[2.0, 1.0, -1.0], [0.5, -3.0, 1.0]], dtype=torch.float64)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def normal(*shape, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


class Linear(WorldModel):
    """A belief z that moves to z A + a; it sees y = z C of its key, and may decode it."""

    def __init__(self, move=TURN, decodes=True, late=False):
        super().__init__()
        self.move_by, self.decodes, self.late = move, decodes, late
        self.nu, self.discount, self.device = 2, 0.9, torch.device("cpu")
        self.calls = []

    def start(self, n):
        return {"z": torch.zeros(n, 2, dtype=torch.float64), "last": torch.zeros(n, 2)}

    def observe(self, belief, action, step, rng):
        self.calls.append(len(action))
        return {"z": step["y"] @ torch.linalg.pinv(SEEN_AS), "last": action}

    def imagine(self, belief, action, rng):
        used = belief["last"] if self.late else action  # late: the classical off-by-one
        z = belief["z"] @ self.move_by + used
        return {"z": z, "last": action}, z.sum(1), torch.ones(len(z))

    def decode(self, belief):
        return {"y": belief["z"] @ SEEN_AS} if self.decodes else {}

    def update(self, batch):
        return {}


def lines(b=24, t=9, seed=0, still=False):
    """Returns windows of the linear world, its rewards paid for arriving."""
    action = normal(b, t, 2, seed=seed) * (0 if still else 1)
    zs = [normal(b, 2, seed=seed + 100)]
    for i in range(t - 1):
        zs.append(zs[-1] @ TURN + action[:, i])
    z = torch.stack(zs, 1)
    return {"y": z @ SEEN_AS, "action": action, "reward": z.sum(2), "label/sign": z > 0}


def parts(still=False, **kwargs):
    made = {}
    for seed, name in enumerate(("fit", "validate", "test")):
        windows = lines(seed=seed, still=still, **kwargs)
        made[name] = Part(windows, torch.arange(len(windows["y"])) // 4)
    return made


def measured(model, made=None, context=3):
    generator = torch.Generator().manual_seed(0)
    return Measured(model, made or parts(), ("y",), context, generator)


@pytest.mark.parametrize("decodes", [True, False])
def test_the_truth_errs_by_rounding_and_beats_both_baselines(decodes):
    found = measured(Linear(decodes=decodes))
    error = found.errors()["y"]
    assert error["by"] == ("decoder" if decodes else "readout") and error["constant"] == 0
    assert error["imagined"].shape == (6, 7)
    assert error["imagined"].max() < (1e-6 if decodes else 1e-4)
    for name in ("persistence", "velocity", "held"):
        assert (error[name][:, 1:] > 0.05).all()
    assert found.reward()["imagined"].max() < 1e-6 and found.reward()["mean"].min() > 0.1
    assert found.belief()["imagined"].max() < 1e-6
    assert 2 < found.belief()["dimensions"] < found.belief()["size"] == 4  # z and the last action


@pytest.mark.parametrize("decodes", [True, False])
def test_a_wrong_matrix_errs_as_the_closed_form_says(decodes):
    wrong, made = TURN * 0.9, parts(still=True)
    error = measured(Linear(wrong, decodes), made).errors()["y"]
    y = made["test"].windows["y"]
    std = made["fit"].windows["y"].flatten(0, 1).std(0, correction=0)
    z0 = y[:, 2] @ torch.linalg.pinv(SEEN_AS)
    for k in range(7):
        gap = z0 @ (torch.matrix_power(wrong, k) - torch.matrix_power(TURN, k)) @ SEEN_AS
        expected = (gap / std).square().mean(1).view(6, 4).mean(1).sqrt()
        torch.testing.assert_close(error["imagined"][:, k], expected, rtol=1e-3, atol=1e-4)


def test_an_action_that_comes_one_step_late_is_seen():
    assert measured(Linear(late=True)).errors()["y"]["imagined"][:, 1:].min() > 0.2


def test_baselines_are_exact_where_they_should_be():
    t = torch.arange(9, dtype=torch.float64)
    start, slope = normal(2, 5, 1, 3)
    x = start + t[None, :, None] * slope
    for context in (2, 4):
        real = foresight.future(x, context)
        torch.testing.assert_close(foresight.velocity(x, context), real)
        still = x[:, :1].expand(5, 9, 3)
        assert torch.equal(foresight.persistence(still, context), foresight.future(still, context))
        assert not torch.allclose(foresight.persistence(x, context), real)
    with pytest.raises(ValueError, match="tells no velocity"):
        foresight.velocity(x, 1)


def test_windows_go_through_in_pieces_that_change_nothing(monkeypatch):
    whole = foresight.foresee(Linear(), lines(), 3, torch.Generator())
    monkeypatch.setattr(foresight, "AT_ONCE", 7)
    model = Linear()
    parts = foresight.foresee(model, lines(), 3, torch.Generator())
    assert set(model.calls) == {7, 3}
    for side in ("seen", "dreamt"):
        a, b = getattr(whole, side), getattr(parts, side)
        assert all(torch.equal(a[k], b[k]) for k in a) and a["z"].shape == (7, 24, 2)
    assert torch.equal(whole.reward, parts.reward)
    decoded = foresight.decode(model, parts.seen)["y"]
    torch.testing.assert_close(decoded, foresight.future(lines()["y"], 3))
    for context in (0, 9):
        with pytest.raises(ValueError, match="it is 1 to 8"):
            foresight.foresee(model, lines(), context, torch.Generator())


class Memory(Linear):
    """A belief that adds up, from an episode's first step on, what was seen and done."""

    def observe(self, belief, action, step, rng):
        goes_on = ~step["first"][:, None]
        return {"z": goes_on * belief["z"] + step["y"], "last": goes_on * belief["last"] + action}


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """Episodes of 5, 9 and 12 steps."""
    folder, rng = tmp_path_factory.mktemp("uneven"), np.random.default_rng(0)
    with Recorder(folder) as recorder:
        for steps in (5, 9, 12):
            for t in range(steps):
                recorder.add({
                    "y": rng.normal(size=(1, 2)), "action": rng.uniform(-1, 1, (1, 2)),
                    "reward": rng.random(1, np.float32), "valid": np.ones(1, bool),
                    "first": np.array([t == 0]), "last": np.array([t == steps - 1]),
                    "terminal": np.zeros(1, bool),
                })  # fmt: skip
    return Episodes(folder)


def test_a_belief_follows_the_whole_episode_up_to_a_window(uneven):
    places, rng = uneven.windows(4, 2), torch.Generator()
    before = foresight.lead(Memory(), uneven, places[::-1].copy(), rng)
    assert sorted(set(places[:, 1].tolist())) == [0, 2, 4, 6, 8]
    for k, (episode, start) in enumerate(places[::-1]):
        whole = uneven.episode(int(episode))
        seen = torch.from_numpy(whole["y"][:start].sum(0))
        done = torch.from_numpy(whole["action"][: max(start - 1, 0)].sum(0))
        torch.testing.assert_close(before.belief["z"][k], seen, check_dtype=False)
        torch.testing.assert_close(before.belief["last"][k], done, check_dtype=False)
        led = torch.from_numpy(whole["action"][start - 1]) if start else torch.zeros(2)
        torch.testing.assert_close(before.action[k], led, check_dtype=False)


@pytest.mark.parametrize("at_once", [256, 3])
def test_a_window_is_foreseen_as_if_acted_from_the_episodes_first_step(
    uneven, monkeypatch, at_once
):
    monkeypatch.setattr(foresight, "AT_ONCE", at_once)
    places, rng = uneven.windows(4, 1), torch.Generator()
    windows = {k: torch.from_numpy(v) for k, v in uneven.take(places, 4).items()}
    episode = torch.from_numpy(places[:, 0])
    followed = Part(windows, episode, (uneven, places)).foreseen(Memory(), 2, rng)
    blank = Part(windows, episode).foreseen(Memory(), 2, rng)
    for k, (which, start) in enumerate(places):
        y = torch.from_numpy(uneven.episode(int(which))["y"])
        torch.testing.assert_close(followed.seen["z"][0, k], y[: start + 2].sum(0))
        torch.testing.assert_close(blank.seen["z"][0, k], y[start : start + 2].sum(0))


def test_probes_of_what_was_imagined_hold_for_the_truth_and_fall_for_a_model_that_drifts():
    good = measured(Linear()).probes()["sign"]
    assert good.keys() == {"observed", "imagined", "held", "recorded"}
    assert all(len(ways) == 7 for ways in good.values())
    scores = {way: [r.score for r in readings] for way, readings in good.items()}
    assert min(scores["observed"]) > 0.85 and scores["imagined"] == scores["observed"]
    assert min(scores["recorded"]) > 0.85 and scores["held"][6] < 0.75
    bad = measured(Linear(-TURN)).probes()["sign"]
    assert bad["observed"][1].score > 0.85 and bad["imagined"][1].score < 0.7


# ---- units, ranks and paces


class Mortal(Linear):
    """A linear world that ends where the sum of z passes 2; `tells` makes that a probability."""

    def __init__(self, tells=lambda sure: sure):
        super().__init__()
        self.tells = tells

    def imagine(self, belief, action, rng):
        belief, reward, _ = super().imagine(belief, action, rng)
        return belief, reward, 1 - self.tells((belief["z"].sum(1) > 2).float())


def ended():
    """Returns the parts of the mortal world: about one of ten steps ends it."""
    made = parts()
    for part in made.values():
        part.windows["terminal"] = part.windows["reward"] > 2
    return made


def test_ends_are_told_where_they_come_and_nowhere_else():
    made = ended()
    came = foresight.future(made["test"].windows["terminal"], 3)[1:].double()
    assert 0.05 < came.mean() < 0.4
    sure = measured(Mortal(), made).ends()
    assert sure["at"].min() == 1 and sure["elsewhere"].max() == 0 and sure["error"].max() == 0
    assert sure["at"].shape[0] <= 6 and sure["elsewhere"].shape == (6, 1)
    assert sure["reliability"]["told"] == sure["reliability"]["came"] == [0, 1]
    assert sum(sure["reliability"]["steps"]) == came.numel()
    rate = came.mean().item()
    assert sure["rate"].mean().item() == pytest.approx(rate * (1 - rate), rel=0.2)


def test_ends_that_are_told_too_early_too_often_or_not_at_all_are_seen():
    made = ended()
    rate = foresight.future(made["fit"].windows["terminal"], 3)[1:].double().mean()
    even = measured(Mortal(lambda sure: sure * 0 + rate), made).ends()
    torch.testing.assert_close(even["error"], even["rate"], rtol=1e-5, atol=1e-6)
    never = measured(Linear(), made).ends()
    assert never["at"].max() == 0 and never["error"].mean() > never["rate"].mean()
    keen = measured(Mortal(lambda sure: 0.35 + 0.6 * sure), made).ends()
    told, out = keen["reliability"]["told"], keen["reliability"]["came"]
    assert told == pytest.approx([0.35, 0.95]) and out == [0, 1]
    late = ended()
    for part in late.values():
        part.windows["terminal"] = part.windows["terminal"].roll(1, 1)
    assert measured(Mortal(), late).ends()["at"].mean() < 0.8
    calm = ended()
    calm["test"].windows["terminal"][:] = False
    assert measured(Mortal(), calm).ends() == {}


def test_probabilities_are_gathered_by_tenths():
    told = torch.tensor([0.0, 0.05, 0.32, 0.38, 1.0, 1.0])
    came = torch.tensor([False, True, False, True, True, True])
    found = foresight.reliability(told, came)
    assert found["told"] == pytest.approx([0.025, 0.35, 1.0])
    assert found["came"] == [0.5, 0.5, 1.0] and found["steps"] == [2, 2, 2]


def test_predicting_the_mean_has_error_one_and_constants_do_not_count():
    x = normal(1, 500, 4) * torch.tensor([1.0, 9.0, 0.1, 0.0]) + 3
    std = foresight.deviations(x[0])
    assert std[3] == 0
    errors = foresight.squared_errors(x[0].mean(0).expand_as(x), x, std)
    assert errors.shape == (1, 500) and errors.mean() == pytest.approx(1)
    images = (normal(6, 8, 4, 4, 3).sigmoid() * 255).to(torch.uint8)
    flat = images.flatten(0, 1)
    std = foresight.deviations(flat, pooled=True)
    mean = flat.double().mean(0).expand(6, 8, 4, 4, 3)
    assert foresight.squared_errors(mean, images, std).mean() == pytest.approx(1)


def test_an_episode_is_the_unit():
    x = torch.tensor([[1.0, 3.0, 10.0]])
    assert foresight.per_episode(x, torch.tensor([0, 0, 1])).tolist() == [[2.0], [10.0]]


def test_ranks_are_those_of_distance_and_ties_share_theirs():
    pool = torch.tensor([[[0.0], [1.0], [3.0]]])
    assert foresight.ranks(pool, pool).tolist() == [[1, 1, 1]]
    assert foresight.ranks(torch.full((1, 3, 1), 0.1), pool).tolist() == [[1, 2, 3]]
    assert foresight.ranks(torch.zeros(1, 3, 1), torch.ones(1, 3, 1)).tolist() == [[2, 2, 2]]


def test_what_is_imagined_at_random_finds_the_future_by_luck():
    query, pool = normal(2, 40, 60, 8)
    found, lucky = foresight.retrieval(query, pool), foresight.lucky(60)
    for name in ("mrr", "recall@5"):
        assert found[name].mean() == pytest.approx(lucky[name], abs=0.02)
    assert foresight.retrieval(pool, pool)["mrr"].min() == 1


def test_order_and_pace_of_truth_of_stillness_and_of_noise():
    seen = normal(10, 50, 6).cumsum(0)
    episode = torch.arange(50) // 5
    assert (foresight.order(seen, seen) == 1).all()
    torch.testing.assert_close(
        foresight.pace(seen, seen, episode), torch.ones(10, 9, dtype=torch.float64)
    )
    still = seen[:1].expand(seen.shape)
    assert (foresight.order(still, still) == 0.5).all()
    assert (foresight.pace(still, seen, episode) == 0).all()
    assert not foresight.pace(seen, still, episode).isfinite().any()
    noise = normal(10, 50, 6, seed=1) * 5
    assert foresight.order(noise, seen).mean() == pytest.approx(0.5, abs=0.05)


def test_dimensions_are_those_that_are_filled():
    x = normal(4000, 3) @ torch.linalg.qr(normal(20, 3))[0].T
    assert foresight.dimensions(x) == pytest.approx(3, abs=0.05)
    assert foresight.dimensions(x[:10, None]) <= 3


def test_a_turn_is_the_same_by_either_quaternion():
    q = torch.nn.functional.normalize(normal(2, 5, 3, 4), dim=-1)
    both = []
    for sign in (1, -1):
        pose = torch.cat([torch.ones(2, 5, 3, 3), sign * q], -1)
        both.append(foresight.truth({"label/pose": pose, "reward": pose}, 2))
    assert both[0].keys() == {"pose/place", "pose/turn"}
    torch.testing.assert_close(both[0]["pose/turn"], both[1]["pose/turn"])
    turn = both[0]["pose/turn"].view(-1, 3, 3)
    torch.testing.assert_close(turn @ turn.mT, torch.eye(3, dtype=torch.float64).expand(24, 3, 3))


# ---- the simulator


def test_the_simulator_foresees_a_world_to_rounding():
    env = BatchEnv("Push", 12, nthread=1, physics=True, labels=True, max_episode_steps=14)
    steps = list(rollout(env, Random(env.single_action_space.shape[0]), 5, episodes_per_row=1))
    record = {k: np.stack([s[k] for s in steps], 1)[:, :12] for k in steps[0]}
    whole = {k: torch.from_numpy(v) for k, v in record.items()}
    cut = {"fit": slice(0, 5), "validate": slice(5, 8), "test": slice(8, 12)}
    made = {
        name: Part({k: v[rows] for k, v in whole.items()}, torch.arange(rows.stop - rows.start))
        for name, rows in cut.items()
    }
    own = BatchEnv("Push", 12, nthread=1, max_episode_steps=-1)
    keys = ("proprio", "objects")
    found = Measured(SimulatorModel(own), made, keys, 4, torch.Generator())
    for key, error in found.errors().items():
        assert error["by"] == "decoder" and error["imagined"].max() < 1e-4, key
        baselines = torch.minimum(error["persistence"], error["velocity"])[:, 1:]
        assert (error["imagined"][:, 1:] < baselines).all()
    assert found.reward()["imagined"].max() < 1e-4
    assert found.belief()["imagined"].max() < 1e-9
    assert found.retrieval()["mrr"]["imagined"].min() == 1
    views = found.views()
    assert views.truth.keys() == views.dreamt.keys() == set(keys)
    assert views.truth["proprio"].shape[:2] == (9, 4)
