"""Learners: PPO, SAC and TD3 of Stable-Baselines3 as learners and as policies.

Networks, losses, replay and loop are SB3's; what is ours is what goes in and out: settings, a
position to go on from, and actions. Nothing of SB3's own files, which hold pickles, is read.
"""

from __future__ import annotations

import inspect
from abc import ABC
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import stable_baselines3 as sb3
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.noise import NormalActionNoise

from ..registry import nearest
from .policy import Carry, Policy, Step
from .sb3 import BatchVecEnv
from .streams import Streams

OURS = {"policy", "env", "seed", "device", "verbose", "tensorboard_log", "stats_window_size"}
OURS |= {"replay_buffer_class", "replay_buffer_kwargs", "optimize_memory_usage"}
OURS |= {"rollout_buffer_class", "rollout_buffer_kwargs", "_init_setup_model"}
NETWORK = {"net_arch", "n_critics", "share_features_extractor", "normalize_images", "ortho_init"}
NETWORK |= {"log_std_init", "full_std", "use_expln", "clip_mean"}  # of policy_kwargs: plain values


class Learner(Policy, ABC):
    """A learner of Stable-Baselines3 over the rows of a world; as a policy it acts by its mode.

    env: a BatchEnv; to learn, with autoreset_mode SAME_STEP. settings: keywords of SB3's class
    that differ from its defaults, plain values; `keys` are the observations it reads (BatchVecEnv
    says which, by default), `action_noise` is the std of normal noise, in units of action. n: rows
    that it learns with, where it only acts here.

    On a CPU and at a fixed number of threads a learner that goes on (`restore`, `go_on`) where it
    was saved learns, bit for bit, what it would have learnt; with `use_sde`, whose noise is not
    saved, it learns something equally likely.

    Raises ValueError for settings that SB3 does not take, or that are no plain values.
    """

    algorithm: ClassVar[type[BaseAlgorithm]]
    log_every: ClassVar[int]  # updates between two lines of metrics

    def __init__(
        self,
        env,
        settings: Mapping[str, Any],
        seed: int = 0,
        device: str = "cpu",
        n: int | None = None,
    ):
        given = dict(settings)
        rows = BatchVecEnv(env, given.pop("keys", None))
        rows.num_envs = n or env.num_envs  # SB3 sizes its buffers by it
        given = _checked(self.algorithm, given)
        if given.get("action_noise") is not None:
            std = np.full(rows.action_space.shape, given["action_noise"], np.float32)
            given["action_noise"] = NormalActionNoise(np.zeros_like(std), std)
        self._rows, self._streams = rows, Streams(torch.device(device))
        try:
            with self._streams:
                self.model = self.algorithm(
                    "MultiInputPolicy", rows, seed=seed % 2**32, device=device, **given
                )
        except (AssertionError, TypeError) as error:  # how SB3 refuses
            name = type(self).__name__.lower()
            raise ValueError(f"{name} with {dict(settings)}: {error}") from error
        self.model.set_logger(Logger(None, []))
        rows.seed(int(np.random.SeedSequence(seed).generate_state(1)[0]) % (2**31 - rows.num_envs))

    @property
    def env_steps(self) -> int:
        """Returns the decisions taken, of all rows together."""
        return self.model.num_timesteps

    @property
    def updates(self) -> int:
        """Returns the updates done, as SB3 counts them: of SAC and TD3 batches, of PPO epochs."""
        return self.model._n_updates

    @property
    def metrics(self) -> dict[str, float]:
        """Returns what SB3 logged of the last updates."""
        logged = self.model.logger.name_to_value
        return {k[6:]: float(v) for k, v in logged.items() if k.startswith("train/")}

    def learn(
        self,
        steps: int,
        stepped: Callable[[np.ndarray, np.ndarray, list[dict]], None],
        pause: Callable[[], None],
    ) -> None:
        """Runs SB3's loop until `steps` decisions are taken; PPO ends with a whole rollout.

        `stepped(reward (n,), done (n,), infos)` is called after each step of all rows, `pause()`
        between two rounds of stepping and learning, and at the end: where `checkpoint` and
        `position` may be asked for. What they raise ends the loop.
        """
        todo = steps - self.env_steps
        with self._streams:
            if todo > 0:
                hear = _Hear(stepped, pause)
                self.model.learn(todo, hear, log_interval=None, reset_num_timesteps=False)
            pause()

    def start(self, seeds: np.ndarray) -> Carry:
        """Returns an empty carry: it remembers nothing and draws nothing."""
        return {}

    def act(self, step: Step, carry: Carry) -> tuple[np.ndarray, Carry]:
        """Returns the mode's actions `(n, nu)` float32 for the step, and the carry."""
        seen = {k: step[k] for k in self._rows.keys}
        return self.model.policy.predict(seen, deterministic=True)[0], carry

    def checkpoint(self) -> dict[str, torch.Tensor]:
        """Returns copies of all weights and of what the optimisers remember, by name."""
        flat: dict[str, torch.Tensor] = {}
        for name, part in self.model.get_parameters().items():
            slots = part["state"] if "param_groups" in part else {}
            for i, slot in slots.items():
                flat |= {f"{name}/state/{i}/{k}": v for k, v in slot.items()}
            if "param_groups" not in part:
                flat |= {f"{name}/{k}": v for k, v in part.items()}
        flat |= {f"variable/{k}": getattr(self.model, k) for k in self._variables()}
        return {k: torch.as_tensor(v).detach().cpu().clone() for k, v in flat.items()}

    @torch.no_grad()
    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Takes over what `checkpoint` returned; ValueError if it is of another network."""
        parts = {}
        for name, own in self.model.get_parameters().items():
            part = {k[len(name) + 1 :]: v for k, v in tensors.items() if k.startswith(f"{name}/")}
            parts[name] = part
            if "param_groups" in own:
                slots: dict[int, dict] = {}
                for key, value in part.items():
                    _, i, k = key.split("/", 2)
                    slots.setdefault(int(i), {})[k] = value
                parts[name] = {"state": slots, "param_groups": own["param_groups"]}
        try:
            self.model.set_parameters(parts)
            for name in self._variables():
                getattr(self.model, name).copy_(tensors[f"variable/{name}"])
        except (RuntimeError, KeyError) as error:
            raise ValueError(
                f"the checkpoint is not of this {type(self).__name__}; build it with the settings, "
                "world and keys of the run"
            ) from error

    def position(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Returns all else that going on needs: arrays, and a JSON-able state.

        The rows of the world, the replay, the streams and the counters. Raises ValueError before
        the first step.
        """
        model = self.model
        if model._last_obs is None:
            raise ValueError("nothing has happened yet; learn first")
        snapshot = self._rows.env.save()
        chance, drawn = self._streams.save()
        arrays = {"starts": model._last_episode_starts}
        arrays |= {"fingerprint": np.frombuffer(snapshot.fingerprint.encode(), np.uint8)}
        arrays |= {f"world/{k}": v for k, v in snapshot.arrays.items()}
        arrays |= {f"last/{k}": v for k, v in model._last_obs.items()}
        arrays |= {f"streams/{k}": v for k, v in chance.items()}
        arrays |= {f"replay/{k}": v[: self._kept()] for k, v in self._replay().items()}
        state = {
            "env_steps": model.num_timesteps, "updates": model._n_updates, "streams": drawn,
            "remaining": model._current_progress_remaining, "kept": self._kept(),
            "actions": model.action_space.np_random.bit_generator.state,
        }  # fmt: skip
        if self._replay():
            state["pos"] = model.replay_buffer.pos
        return arrays, state

    def go_on(self, arrays: dict[str, np.ndarray], state: dict[str, Any]) -> None:
        """Goes to where `position` was asked for; the next `learn` goes on from there."""
        model, env = self.model, self._rows.env
        parts: dict[str, dict] = {"world": {}, "last": {}, "streams": {}, "replay": {}}
        for key, value in arrays.items():
            room, _, name = key.partition("/")
            if name:
                parts[room][name] = value
        env.load(type(env.save())(arrays["fingerprint"].tobytes().decode(), parts["world"]))
        model._last_obs, model._last_episode_starts = parts["last"], arrays["starts"]
        model.num_timesteps, model._n_updates = state["env_steps"], state["updates"]
        model._current_progress_remaining = state["remaining"]
        self._streams.load(parts["streams"], state["streams"])
        model.action_space.np_random.bit_generator.state = state["actions"]
        for name, array in self._replay().items():
            array[: state["kept"]] = parts["replay"][name]
        if self._replay():
            model.replay_buffer.pos = state["pos"]
            model.replay_buffer.full = state["kept"] == model.replay_buffer.buffer_size

    def _variables(self) -> list[str]:
        return self.model._get_torch_save_params()[1]

    def _kept(self) -> int:
        return self.model.replay_buffer.size() if self._replay() else 0

    def _replay(self) -> dict[str, np.ndarray]:
        """Returns the arrays of the replay by name, none of one that learns from its rollout."""
        buffer = getattr(self.model, "replay_buffer", None)
        if buffer is None:
            return {}
        names = ("actions", "rewards", "dones", "timeouts")
        found = {k: getattr(buffer, k) for k in names}
        found |= {f"now/{k}": v for k, v in buffer.observations.items()}
        return found | {f"next/{k}": v for k, v in buffer.next_observations.items()}


class PPO(Learner):
    """Proximal policy optimisation of Stable-Baselines3, with its published defaults.

    Source: Schulman et al. 2017, arXiv:1707.06347.
    """

    algorithm = sb3.PPO
    log_every = 1


class SAC(Learner):
    """Soft actor-critic of Stable-Baselines3, with its published defaults.

    Source: Haarnoja et al. 2018, arXiv:1812.05905.
    """

    algorithm = sb3.SAC
    log_every = 250


class TD3(Learner):
    """Twin delayed DDPG of Stable-Baselines3, with its published defaults.

    Source: Fujimoto, van Hoof and Meger 2018, arXiv:1802.09477.
    """

    algorithm = sb3.TD3
    log_every = 250


class _Hear(BaseCallback):
    """SB3's callback that passes on what its loop does."""

    def __init__(self, stepped: Callable, pause: Callable[[], None]):
        super().__init__()
        self._stepped, self._pause = stepped, pause

    def _on_rollout_start(self) -> None:
        self._pause()

    def _on_step(self) -> bool:
        self._stepped(self.locals["rewards"], self.locals["dones"], self.locals["infos"])
        return True


def _checked(algorithm: type[BaseAlgorithm], given: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings with whole numbers as ints; ValueError for what SB3 does not take."""
    what = algorithm.__name__.lower()
    defaults = {
        k: p.default for k, p in inspect.signature(algorithm).parameters.items() if k not in OURS
    }
    for name, value in given.items():
        if name not in defaults:
            raise ValueError(f"no key {name!r} for {what}{nearest(name, [*defaults, 'keys'])}")
        given[name] = _value(f"{name}={value} of {what}", value, defaults[name], name)
    for name in given.get("policy_kwargs") or {}:
        if name not in NETWORK:
            raise ValueError(f"no key {name!r} for policy_kwargs of {what}{nearest(name, NETWORK)}")
    return given


def _value(shown: str, value: Any, default: Any, name: str) -> Any:
    kind = type(value)
    if name == "policy_kwargs":
        fits, wanted = isinstance(value, Mapping), "keys, as in policy_kwargs.net_arch=[64,64]"
        value = dict(value) if fits else value
    elif isinstance(default, bool):
        fits, wanted = kind is bool, "true or false"
    elif isinstance(default, int):
        fits, wanted = kind is int or (kind is float and value.is_integer()), "a whole number"
        value = int(value) if fits else value
    elif isinstance(default, str):
        fits, wanted = kind in (int, float, str), "a number or 'auto'"
    else:
        fits, wanted = kind in (int, float) or value is default, "a number"
    if not fits:
        raise ValueError(f"{shown} must be {wanted}")
    return value
