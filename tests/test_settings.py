"""Settings: what holds where nothing is said is what the authors' own configuration files say."""

import inspect
import re

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict

from umwelten import cli, config, learn
from umwelten import train as verb
from umwelten.agents.planners import MPPI
from umwelten.laprop import LaProp
from umwelten.run import Run
from umwelten.world_models.dreamer import DreamerV3
from umwelten.world_models.rssm import RSSM
from umwelten.world_models.tdmpc2 import TDMPC2

SPACE = Dict({"proprio": Box(-np.inf, np.inf, (4,), np.float32)})
# Source: tdmpc2/config.yaml and tdmpc2/tdmpc2.py of github.com/nicklashansen/tdmpc2 at e9f5932.
TDMPC2S = {
    "horizon": 3, "batch_size": 256, "lr": 3e-4, "encoder_lr_scale": 0.3, "grad_clip": 20.0,
    "consistency_coef": 20.0, "reward_coef": 0.1, "value_coef": 0.1, "terminal_coef": 1.0,
    "entropy_coef": 1e-4, "rho": 0.5, "tau": 0.01, "dropout": 0.01, "log_std": (-10.0, 2.0),
    "bins": 101, "bound": 10.0, "shift": 3, "task_width": 96,
}  # fmt: skip
MPPIS = {
    "horizon": 3, "samples": 512, "proposals": 24, "elites": 64, "temperature": 0.5,
    "min_std": 0.05, "max_std": 2.0,
}  # fmt: skip
# Source: dreamerv3/configs.yaml and embodied/jax/opt.py of github.com/danijar/dreamerv3 at e3f0224.
DREAMERS = {
    "batch_size": 16, "batch_length": 64, "horizon": 15, "lr": 4e-5, "warmup": 1000, "clip": 0.3,
    "discount": 1 - 1 / 333, "lam": 0.95, "entropy_coef": 3e-4, "free_nats": 1.0, "tau": 0.02,
}  # fmt: skip
LAPROPS = {"betas": (0.9, 0.999), "eps": 1e-20, "clip": 0.3, "floor": 1e-3}
RSSMS = {"blocks": 8, "unimix": 0.01}


@pytest.mark.parametrize(
    "kind, theirs",
    [(TDMPC2, TDMPC2S), (MPPI, MPPIS), (DreamerV3, DREAMERS), (LaProp, LAPROPS), (RSSM, RSSMS)],
)
def test_defaults_are_the_authors(kind, theirs):
    ours = {k: p.default for k, p in inspect.signature(kind).parameters.items()}
    assert {k: ours[k] for k in theirs} == theirs


@pytest.mark.parametrize("nu, iterations", [(1, 6), (19, 6), (20, 8), (38, 8)])
def test_mppi_searches_longer_for_a_wide_action(nu, iterations):
    model = TDMPC2(SPACE, nu, size=1, device="meta")
    assert MPPI(model).iterations == iterations and MPPI(model, iterations=3).iterations == 3


def windows(model, seed=0, b=8):
    g, t = torch.Generator().manual_seed(seed), model.window
    marks = {k: torch.zeros(b, t, dtype=torch.bool) for k in ("first", "last", "terminal")}
    return marks | {
        "proprio": torch.randn(b, t, 4, generator=g),
        "action": torch.rand(b, t, model.nu, generator=g) * 2 - 1,
        "reward": torch.rand(b, t, generator=g),
    }


def test_every_weight_of_tdmpc2_is_learnt_once_and_at_its_own_rate():
    model = TDMPC2(SPACE, 2, size=1, episodic=True)
    encoder, rest = model.model_optimiser.param_groups
    (policy,) = model.policy_optimiser.param_groups
    groups = [{*group["params"]} for group in (encoder, rest, policy)]
    learned = [p for p in model.parameters() if p.requires_grad]
    assert sum(map(len, groups)) == len(learned) and set.union(*groups) == {*learned}
    assert groups[0] == {*model.encoder.parameters()}
    assert groups[2] == {*model.policy.parameters()}
    rates = [group["lr"] for group in (encoder, rest, policy)]
    np.testing.assert_allclose(rates, [9e-5, 3e-4, 3e-4])
    assert [g["eps"] for g in (encoder, rest, policy)] == [1e-8, 1e-8, 1e-5]
    assert all(g["betas"] == (0.9, 0.999) for g in (encoder, rest, policy))
    assert all(g["weight_decay"] == 0 for g in (encoder, rest, policy))


def test_the_gradients_of_model_and_policy_are_each_cut_to_the_norm():
    cut = {"model": [], "policy": []}
    for clip in (1e-4, 1e4):
        model = TDMPC2(SPACE, 2, size=1, batch_size=8, grad_clip=clip)
        optimisers = {"model": model.model_optimiser, "policy": model.policy_optimiser}
        for name, optimiser in optimisers.items():

            def note(optimiser, *_, name=name):
                grads = [p.grad for g in optimiser.param_groups for p in g["params"]]
                cut[name].append(torch.nn.utils.get_total_norm(grads).item())

            optimiser.register_step_pre_hook(note)
        metrics = model.update(windows(model))
    for name, key in (("model", "grad_norm"), ("policy", "policy_grad_norm")):
        whole = metrics[key].item()
        assert whole > 2e-4
        np.testing.assert_allclose(cut[name], [1e-4, whole], rtol=1e-3)


def test_dreamer_learns_by_the_settings_it_was_given():
    model = DreamerV3(SPACE, 2, lr=1e-3, clip=0.2, warmup=7)
    (group,) = model.optimiser.param_groups
    assert (group["lr"], group["clip"], group["warmup"]) == (1e-3, 0.2, 7)
    assert {*group["params"]} == {p for p in model.parameters() if p.requires_grad}


@pytest.mark.parametrize(
    "arguments, seed_steps, pretrain, ratio",
    [
        (["task=cartpole_swingup", "action_repeat=2"], 2500, 2500, 1.0),
        (["task=cartpole_swingup", "action_repeat=10"], 1000, 1000, 1.0),
        (["task=cartpole_swingup", "agent=dreamer"], 1024, 0, 1.0),
    ],
)
def test_a_training_begins_with_as_many_decisions_at_random(
    arguments, seed_steps, pretrain, ratio, tmp_path, monkeypatch
):
    """Source: envs/__init__.py and trainer/online_trainer.py of TD-MPC2's authors; ours is 1024."""
    seen = {}

    def stop(*_, **told):
        seen.update(told)
        raise InterruptedError

    monkeypatch.setattr(learn, "train", stop)
    told = config.compose(verb.train, [*arguments, "evaluate_every=0", "device=cpu"])
    told = {k: v for k, v in told.items() if k not in ("out", "threads")}
    threads = torch.get_num_threads()
    with Run(tmp_path / "run") as run, pytest.raises(InterruptedError):
        verb.run_training(run, told, threads)
    assert (seen["seed_steps"], seen["pretrain"]) == (seed_steps, pretrain)
    assert seen["ratio"] == ratio
    mppi = "agent=dreamer" not in arguments
    assert isinstance(seen["policy"]._policy, MPPI) == mppi


@pytest.mark.parametrize(
    "kind, wrong",
    [
        (TDMPC2, {"horizon": 0}), (TDMPC2, {"batch_size": 0}), (TDMPC2, {"bins": 1}),
        (TDMPC2, {"latent": 12}), (TDMPC2, {"log_std": (1.0,)}), (TDMPC2, {"log_std": (2.0, -1.0)}),
        (TDMPC2, {"grad_clip": -1.0}), (TDMPC2, {"rho": 1.5}), (TDMPC2, {"tau": 5.0}),
        (TDMPC2, {"dropout": 1.0}), (TDMPC2, {"discount": 2.0}),
        (DreamerV3, {"batch_size": -3}), (DreamerV3, {"discount": 0.0}), (DreamerV3, {"lam": 3.0}),
        (DreamerV3, {"free_nats": -1.0}), (DreamerV3, {"tau": 2.0}),
        (DreamerV3, {"entropy_coef": -1.0}),
    ],
)  # fmt: skip
def test_settings_that_teach_nothing_are_refused_by_name(kind, wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=re.escape(f"{name} {value} ")):
        kind(SPACE, 2, size=1, device="meta", **wrong)


@pytest.mark.parametrize(
    "wrong, said",
    [
        ("steps=0", "steps=0 is below 1"),
        ("n=0", "n=0 is below 1"),
        ("episodes=0", "episodes=0 is below 1"),
        ("save_every=0", "save_every=0 is below 1"),
        ("ratio=-1", "ratio=-1.0 is below 0"),
        ("seed=-1", "seed=-1 is below 0"),
        ("seed_steps=-7", "seed_steps=-7 is below -1"),
        ("model.horizon=1000", "an episode of reach has 51 at most"),
        ("model.latent=12", "a multiple of 8"),
    ],
)
def test_a_training_out_of_range_is_answered_in_one_line(wrong, said, tmp_path, capsys):
    told = ["task=reach", "model.size=1", "device=cpu", f"out={tmp_path / 'run'}"]
    assert cli.main(["train", *told, wrong]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.mark.parametrize("wrong", ["steps=0", "steps=-5", "seeds=0", "episodes=0"])
def test_a_verification_out_of_range_is_answered_in_one_line(wrong, tmp_path, capsys):
    assert cli.main(["verify", "tdmpc2", f"out={tmp_path / 'gates'}", wrong]) == 2
    error = capsys.readouterr().err
    assert wrong in error and "below 1" in error and error.count("\n") == 1
    assert not [*tmp_path.iterdir()]
