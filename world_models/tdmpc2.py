"""TD-MPC2: a latent model learned from rewards, values and its own next latents; no decoder.

It knows nothing of the planner that searches through it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from math import inf

import gymnasium
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..kernels import GROUP
from ..nets import (
    MLP,
    Ensemble,
    TwoHot,
    check_bf16,
    distinct_rows,
    dropout_mask,
    norm_simnorm,
    squashed_gaussian,
)
from . import official
from .encoders import (
    FRAMES,
    PIXELS,
    PixelEncoder,
    VectorEncoder,
    choose_keys,
    shift_frames,
    stack_frames,
    window_starts,
)
from .model import Belief, WorldModel, require
from .parts import Make, fit
from .saving import copied, put_back
from .tasks import TaskSpec, TaskTable, Told, heuristic_discount, told_of

# size in millions of parameters: (encoder width, its layers, latent, width of the rest, critics)
SIZES = {
    1: (256, 2, 128, 384, 2),
    5: (256, 2, 512, 512, 5),
    19: (1024, 3, 768, 1024, 5),
    48: (1792, 4, 768, 1792, 5),
    317: (4096, 5, 1376, 4096, 8),
}


class TDMPC2(WorldModel):
    """Latents on simplices, with dynamics, reward, a policy and an ensemble of critics on them.

    Source: Hansen et al. 2024, arXiv 2310.16828, with the loss weights and the entropy term of
    the authors' current code: entropy is -nu log N(a), taken before the tanh. Choices that differ
    from that code: images are shifted at random in learning only; where the latent is not 512 the
    pixel encoder has latent / 16 channels instead of 32; the policy's loss moves no embedding of a
    task (there its gradient is left over for the next update of the model); an end is foreseen by
    its probability, not by whether that is above 1/2, and among several tasks as well.

    observation: the space of a step's observations. keys: None for every float32 vector, some
    vectors, or one 64 x 64 image. nu: components of an action. size: 1, 5, 19, 48 or 317.
    episode_length: steps, for the discount unless one is given. episodic: learn when the task
    ends. bf16: matrix products in bfloat16 (CUDA). compile: torch.compile the pure parts.
    tasks: several to learn at once, from vectors; steps then say by `task` (n,) int64 which of
    them a row has, observations and actions are padded to the widest, every network reads the
    task's embedding of `task_width` numbers behind what it reads anyway, and each task has the
    discount of its own episodes. latent: in place of the size's own. parts: networks of one's own
    in place of these, `{place of PARTS: what makes it}`, as `parts.fit` says; m rows, d latent.
    Raises ValueError for keys, sizes, tasks and devices that are not among those.
    """

    PARTS = {  # noqa: RUF012 (a literal, which the registry reads)
        "encoder": "observations (m, ·) or images of frames to latents (m, d), simplices",
        "dynamics": "latents (..., d), actions (..., nu) to latents (..., d), simplices",
        "reward": "latents (..., d), actions (..., nu) to logits of bins (..., 101)",
        "terminal": "latents (..., d) to a logit (..., 1), where episodic",
        "policy": "latents (..., d) to mean and raw deviation (..., 2 nu)",
        "critics": "latents (m, d), actions (m, nu) to logits (k, m, 101); as nets.Ensemble",
    }
    differentiable = True

    def __init__(
        self,
        observation: gymnasium.spaces.Dict,
        nu: int,
        size: int = 5,
        episode_length: int = 500,
        episodic: bool = False,
        seed: int = 0,
        device: str | torch.device = "cpu",
        keys: Sequence[str] | None = None,
        compile: bool = False,
        *,
        horizon: int = 3,
        batch_size: int = 256,
        lr: float = 3e-4,
        encoder_lr_scale: float = 0.3,
        grad_clip: float = 20.0,
        consistency_coef: float = 20.0,
        reward_coef: float = 0.1,
        value_coef: float = 0.1,
        terminal_coef: float = 1.0,
        entropy_coef: float = 1e-4,
        rho: float = 0.5,
        tau: float = 0.01,
        dropout: float = 0.01,
        discount: float | None = None,
        log_std: tuple[float, float] = (-10.0, 2.0),
        bins: int = 101,
        bound: float = 10.0,
        shift: int = 3,
        bf16: bool = False,
        tasks: Sequence[TaskSpec] | None = None,
        task_width: int = 96,
        latent: int | None = None,
        parts: Mapping[str, Make] | None = None,
    ):
        super().__init__()
        self.device = torch.device(device)
        _check(size, horizon, batch_size, bins, grad_clip, rho, tau, dropout, discount)
        if bf16:
            check_bf16(self.device)
        self._choose(observation, keys, tasks is not None)
        self.nu, self.episodic, self.horizon, self.batch_size = nu, episodic, horizon, batch_size
        self.window = horizon + 1 + (FRAMES - 1 if self.pixels else 0)
        self.discount = heuristic_discount(episode_length) if discount is None else discount
        self.log_std, self.latent = _pair(log_std), _width(latent, SIZES[size][2])
        self.coefs = (consistency_coef, reward_coef, value_coef, terminal_coef, entropy_coef)
        self.rho, self.tau, self.dropout, self.grad_clip = rho, tau, dropout, grad_clip
        self.shift, self.bf16, self.two_hot = shift, bf16, TwoHot(-bound, bound, bins)
        self.seed, self.updates, rng = seed, 0, torch.Generator("cpu").manual_seed(seed)
        with torch.device("meta" if self.device.type == "meta" else "cpu"):
            self._build(size, 0 if tasks is None else task_width, parts, rng)
            self.tasks = None if tasks is None else TaskTable(tasks, nu, task_width, rng, discount)
        self.discount = self.discount if self.tasks is None else self.tasks.longest
        self.to(self.device)
        self.generator = torch.Generator("cpu" if self.device.type == "meta" else self.device)
        self._build_optimisers(lr, encoder_lr_scale)
        if compile:
            self._compile()

    def _choose(self, observation: gymnasium.spaces.Dict, keys, several: bool) -> None:
        """Notes what is read of a step: `senses`, and which task where there are several."""
        self.senses = choose_keys(observation, keys)
        self.keys = (*self.senses, "task") if several else self.senses
        self.pixels = self.senses[0].startswith("rgb/")
        if several and (self.pixels or "task" not in observation.spaces):
            raise ValueError(
                f"several tasks are learnt from vectors and 'task'; there are {list(observation)}"
            )
        self.observation = {k: observation[k] for k in self.keys}

    def _compile(self) -> None:
        # All of an update but the optimisers, as graphs that a GPU replays without Python.
        self._model_step = torch.compile(self._model_step, mode="reduce-overhead")
        self._policy_loss = torch.compile(self._policy_loss, mode="reduce-overhead")
        self._imagine = torch.compile(self._imagine)

    def _build(self, size: int, told: int, parts, rng: torch.Generator) -> None:
        """Makes the networks; each reads `told` numbers more, the embedding of the task."""
        inputs = sum(self.observation[k].shape[0] for k in self.senses)
        wide, layers, _, hidden, count = SIZES[size]
        self.hidden, latent, bins = hidden, self.latent, self.two_hot.count
        z, za = latent + told, latent + told + self.nu
        if self.pixels:
            self.encoder = PixelEncoder(latent, rng)
        else:
            widths = [inputs + told, *[wide] * max(layers - 1, 1), latent]
            self.encoder = VectorEncoder(widths, rng)
        self.dynamics = MLP([za, hidden, hidden, latent], rng, last=norm_simnorm)
        self.reward = MLP([za, hidden, hidden, bins], rng, zero=True)
        self.terminal = MLP([z, hidden, hidden, 1], rng) if self.episodic else None
        self.policy = MLP([z, hidden, hidden, 2 * self.nu], rng)
        self.critics = Ensemble(count, [za, hidden, hidden, bins], rng)
        self.fitted = fit(self, self.PARTS, parts, rng)
        self.target = copy.deepcopy(self.critics).requires_grad_(False)
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("ends", torch.tensor([0.05, 0.95]), persistent=False)  # quantiles

    def _build_optimisers(self, lr: float, encoder_lr_scale: float) -> None:
        encoder, policy = list(self.encoder.parameters()), list(self.policy.parameters())
        apart = {*encoder, *policy}
        rest = [p for p in self.parameters() if p.requires_grad and p not in apart]
        fused = self.device.type in ("cpu", "cuda")
        groups = [{"params": encoder, "lr": lr * encoder_lr_scale}, {"params": rest}]
        self.model_optimiser = torch.optim.Adam(groups, lr=lr, fused=fused)
        self.policy_optimiser = torch.optim.Adam(policy, lr=lr, eps=1e-5, fused=fused)
        for optimiser in (self.model_optimiser, self.policy_optimiser):
            for p in (p for group in optimiser.param_groups for p in group["params"]):
                # Moments from the start: a checkpoint then has one set of names, whatever its age.
                optimiser.state[p] = {
                    "step": torch.zeros((), device=self.device),
                    "exp_avg": torch.zeros_like(p),
                    "exp_avg_sq": torch.zeros_like(p),
                }

    def parameter_count(self) -> int:
        """Returns how many numbers are learned; the target critics are not counted."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def start(self, n: int) -> Belief:
        belief = {"z": torch.zeros(n, self.latent, device=self.device)}
        if self.pixels:
            shape = (n, PIXELS, PIXELS, 3 * FRAMES)
            belief["frames"] = torch.zeros(shape, dtype=torch.uint8, device=self.device)
        if self.tasks is not None:
            belief["task"] = torch.zeros(n, dtype=torch.int64, device=self.device)
        return belief

    @torch.no_grad()
    def observe(self, belief: Belief, action: Tensor, step: dict[str, Tensor], rng) -> Belief:
        self.io_contract().check_step(step, action)
        if not self.pixels:
            z = self.encoder(told_of(self._vector(step), self._told(step)))
            return {"z": z} | self._task(step)
        image = step[self.keys[0]]
        frames = torch.cat([belief["frames"][..., 3:], image], -1)
        again = image.repeat(1, 1, 1, FRAMES)
        frames = torch.where(step["first"][:, None, None, None], again, frames)
        return {"z": self.encoder(frames), "frames": frames}

    def imagine(self, belief: Belief, action: Tensor, rng) -> tuple[Belief, Tensor, Tensor]:
        # Candidates of one row begin at one latent; its share of the first layers is taken once.
        told = self._told(belief)
        z = told_of(belief["z"], told)
        action = action if told is None else action * told.mask
        if not (z.requires_grad or self.fitted):
            z = distinct_rows(z)
        z, reward, alive = self._imagine(z, action, told)
        return {"z": z} | self._task(belief), reward, alive

    def _imagine(self, z: Tensor, action: Tensor, told: Told | None):
        reward, z = self.two_hot.decode(self.reward(z, action)), self.dynamics(z, action)
        if self.terminal is None:
            return z, reward, torch.ones_like(reward)
        return z, reward, 1 - torch.sigmoid(self.terminal(told_of(z, told))[:, 0])

    def discounts(self, belief: Belief) -> float | Tensor:
        """Returns the discount of the model, or of the task of each row, (n,)."""
        return self.discount if self.tasks is None else self.tasks.discount[belief["task"]]

    def value(self, belief: Belief, rng) -> Tensor:
        """Returns the mean of two critics, drawn anew per call, at an action of the policy."""
        z, told = belief["z"], self._told(belief)
        action, _ = self._act(z, self._noise(z.shape[:-1], rng), told)
        return self._q(self.critics, told_of(z, told), action, self._two(rng)).mean(0)

    @torch.no_grad()
    def propose(self, belief: Belief, rng) -> Tensor:
        z, told = belief["z"], self._told(belief)
        if rng is None:
            return self._act(z, torch.zeros(*z.shape[:-1], self.nu, device=z.device), told)[0]
        return self._act(z, self._noise(z.shape[:-1], rng), told)[0]

    def update(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Takes one step on windows of `window` steps; only `terminal` stops the bootstrap."""
        self.io_contract().check_batch(batch)
        # Chance is a function of the seed and the update alone: nothing else has to be saved, and
        # a checkpoint goes on on any device.
        chance = np.random.SeedSequence([self.seed, self.updates]).generate_state(1)
        self.generator.manual_seed(int(chance[0]))
        self.updates += 1
        observed, action, reward, terminal = self._read(batch)
        told = self._told(batch)
        action = action if told is None else action * told.mask
        rows = action.shape[:2]
        noise, members = self._part(self._noise, rows), self._two(self.generator)
        mask = self._mask(self.critics.count, rows)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            loss, zs, metrics = self._model_step(
                observed, action, reward, terminal, noise, members, mask, told
            )
        # Of its own as the metrics are: the next graph may overwrite what this one returned.
        zs = zs.detach().clone()
        metrics = self._descend(self.model_optimiser, loss, metrics, "grad_norm")
        if told is not None:
            self.tasks.project()
            told = self._told(batch).detach()
        members, noise = self._two(self.generator), self._part(self._noise, zs.shape[:-1])
        mask = self._mask(len(members), zs.shape[:-1])
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            loss, scale, more = self._policy_loss(zs, noise, members, mask, told)
        self.scale.copy_(scale)
        more = self._descend(self.policy_optimiser, loss, more, "policy_grad_norm")
        with torch.no_grad():
            ours, theirs = list(self.critics.parameters()), list(self.target.parameters())
            torch._foreach_lerp_(theirs, ours, self.tau)
        return metrics | more

    def _descend(self, optimiser, loss: Tensor, metrics: dict[str, Tensor], norm: str):
        """Steps an optimiser down the gradient of `loss`, clipped.

        Returns the metrics, that gradient's norm among them, as tensors of their own.
        """
        loss.backward()
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        self.share.mean_([*(p.grad for p in parameters), *metrics.values()])
        metrics[norm] = torch.nn.utils.clip_grad_norm_(parameters, self.grad_clip)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return dict(zip(metrics, torch.stack([*metrics.values()]).detach().unbind(), strict=True))

    def _read(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns observations (h + 1, b, ...), actions, rewards and terminals (h, b, ...)."""
        action, reward = batch["action"], batch["reward"]
        terminal = batch["terminal"].float()
        if self.pixels:
            start = window_starts(batch["first"], self.generator, self.share)
            steps = start[:, None] + torch.arange(self.horizon + 1, device=self.device)
            observed = stack_frames(batch[self.senses[0]], steps)
            rows = torch.arange(len(steps), device=self.device)[:, None]
            action, reward, terminal = (x[rows, steps] for x in (action, reward, terminal))
            observed = observed.flatten(0, 1)
            observed = shift_frames(observed, self.shift, self.generator, self.share)
            observed = observed.unflatten(0, steps.shape)
        else:
            observed = self._vector(batch)
        parts = (observed, action[:, :-1], reward[:, 1:], terminal[:, 1:])
        return tuple(x.transpose(0, 1).contiguous() for x in parts)

    def _model_step(self, observed, action, reward, terminal, noise, members, mask, told):
        """Returns what `_model_loss` does, by the targets that noise and members give."""
        with torch.no_grad():
            goals, returns = self._targets(observed[1:], reward, terminal, noise, members, told)
        return self._model_loss(observed[0], action, reward, terminal, goals, returns, mask, told)

    def _targets(self, observed, reward, terminal, noise, members, told=None):
        """Returns the latents to reach (h, b, latent) and the returns to predict (h, b)."""
        discount = self.discount if told is None else told.discount
        told = None if told is None else told.repeat(len(reward))
        z = self.encoder(told_of(observed.flatten(0, 1), told))
        action, _ = self._act(z, noise.flatten(0, 1), told)
        q = self._q(self.target, told_of(z, told), action, members)
        value = q.amin(0).view_as(reward)
        return z.view(*reward.shape, -1), reward + discount * (1 - terminal) * value

    def _model_loss(self, first, action, reward, terminal, goals, returns, mask, told=None):
        """Returns the loss, the latents (h + 1, b, latent) of the rollout and the metrics."""
        weight = self.rho ** torch.arange(self.horizon, device=first.device)
        zs = [self.encoder(told_of(first, told))]
        for a in action:
            zs.append(self.dynamics(told_of(zs[-1], told), a))
        zs = torch.stack(zs)
        consistency = (zs[1:] - goals).square().mean((1, 2))
        za = told_of(zs[:-1], told).flatten(0, 1), action.flatten(0, 1)
        predicted = self.reward(*za).view(*reward.shape, -1)
        q = self.critics(*za, mask=mask).view(-1, *reward.shape, self.two_hot.count)
        losses = {
            "consistency_loss": (weight * consistency).mean(),
            "reward_loss": (weight * self.two_hot.loss(predicted.float(), reward).mean(1)).mean(),
            "value_loss": (weight * self.two_hot.loss(q.float(), returns).mean((0, 2))).mean(),
        }
        if self.terminal is not None:
            logits = self.terminal(told_of(zs[1:], told))[..., 0].float()
            losses["terminal_loss"] = F.binary_cross_entropy_with_logits(logits, terminal)
        total = sum(c * v for c, v in zip(self.coefs, losses.values(), strict=False))
        return total, zs, losses | {"total_loss": total}

    def _policy_loss(self, zs, noise, members, mask, told=None):
        """Returns the loss, the new scale of values and the metrics; critics get no gradient."""
        action, density = self._act(zs, noise, told)
        za = told_of(zs, told).flatten(0, 1), action.flatten(0, 1)
        q = self._q(self.critics, *za, members, mask, frozen=True).mean(0).view(zs.shape[:-1])
        low, high = torch.quantile(self.share.gather(q[0].detach()), self.ends)
        scale = torch.lerp(self.scale, (high - low).clamp(min=1), self.tau)
        entropy = -(self.nu if told is None else told.nu) * density
        weight = self.rho ** torch.arange(len(zs), device=zs.device)
        loss = -(weight * (self.coefs[-1] * entropy + q / scale).mean(1)).mean()
        metrics = {"policy_loss": loss, "policy_entropy": entropy.mean(), "policy_scale": scale}
        return loss, scale.detach(), metrics | {"policy_value": q.mean()}

    def _vector(self, step: dict[str, Tensor]) -> Tensor:
        return torch.cat([step[k] for k in self.senses], -1)

    def _told(self, source: dict[str, Tensor]) -> Told | None:
        """Returns what is told of the tasks of a step, a belief or windows: one task a window."""
        if self.tasks is None:
            return None
        task = source["task"]
        return self.tasks(task if task.ndim == 1 else task[:, 0])

    def _task(self, source: dict[str, Tensor]) -> Belief:
        return {} if self.tasks is None else {"task": source["task"]}

    def _act(self, z: Tensor, noise: Tensor, told: Told | None) -> tuple[Tensor, Tensor]:
        mean, raw = self.policy(told_of(z, told)).float().chunk(2, -1)
        mask = None if told is None else told.mask
        return squashed_gaussian(mean, raw, noise, *self.log_std, mask)

    def _q(self, critics: Ensemble, z: Tensor, action: Tensor, members, mask=None, frozen=False):
        """Returns the values (k, m) of actions (m, nu) at latents z (m, latent)."""
        logits = critics(z, action, members=members, mask=mask, frozen=frozen)
        return self.two_hot.decode(logits.float())

    def _noise(self, rows: tuple[int, ...], rng: torch.Generator) -> Tensor:
        return torch.randn(*rows, self.nu, generator=rng, device=self.device)

    def _two(self, rng: torch.Generator) -> Tensor:
        """Returns which two critics are asked, (2,) int64."""
        return torch.randperm(self.critics.count, generator=rng, device=self.device)[:2]

    def _mask(self, count: int, rows: tuple[int, int]) -> Tensor | None:
        """Returns a mask (count, steps x windows, hidden) for rows (steps, windows)."""
        if self.dropout == 0:
            return None
        shape = (count, *rows, self.hidden)
        mask = self.share.part(lambda s: dropout_mask(s, self.dropout, self.generator), shape, 2)
        return mask.flatten(1, 2)

    def _part(self, draw, rows: tuple[int, int]) -> Tensor:
        """Returns this process's windows of what is drawn for rows (steps, windows)."""
        return self.share.part(lambda s: draw(s, self.generator), rows, 1)

    def load_official(self, path) -> None:
        """Takes the weights of a checkpoint file of the authors'; see `official`."""
        official.fill(self, official.read(path))

    def checkpoint(self) -> dict[str, Tensor]:
        """Returns all that the next update depends on, as contiguous tensors on the CPU."""
        return copied(self._tensors()) | {"chance": torch.tensor([self.seed, self.updates])}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Takes back what `checkpoint` gave; the updates that follow are those it would have had.

        Raises ValueError where a tensor is missing, unknown or of another shape.
        """
        own = self._tensors() | {"chance": torch.zeros(2, dtype=torch.int64)}
        put_back(own, tensors)
        self.seed, self.updates = own["chance"].tolist()

    def _tensors(self) -> dict[str, Tensor]:
        """Returns every live tensor that an update reads and writes, by name."""
        tensors = {f"model/{k}": v for k, v in self.state_dict().items()}
        names = {p: name for name, p in self.named_parameters()}
        for optimiser in (self.model_optimiser, self.policy_optimiser):
            for p, moments in optimiser.state.items():
                tensors |= {f"adam/{names[p]}/{k}": v for k, v in moments.items()}
        return tensors


def _check(size, horizon, batch_size, bins, grad_clip, rho, tau, dropout, discount) -> None:
    """Raises ValueError for a setting that is out of its range."""
    if size not in SIZES:
        raise ValueError(f"size {size} is not one of {sorted(SIZES)} (millions of parameters)")
    require(
        horizon=(horizon, 1, inf), batch_size=(batch_size, 1, inf), bins=(bins, 2, inf),
        grad_clip=(grad_clip, 0, inf), rho=(rho, 0, 1), tau=(tau, 0, 1),
        dropout=(dropout, 0, 0.99), discount=(1 if discount is None else discount, 0, 1),
    )  # fmt: skip


def _pair(log_std: Sequence[float]) -> tuple[float, float]:
    """Returns the bounds of the policy's log deviation; raises ValueError unless low < high."""
    if len(log_std) != 2 or not log_std[0] < log_std[1]:
        raise ValueError(f"log_std {log_std!r} is not allowed; it is (low, high), low below high")
    return tuple(log_std)


def _width(latent: int | None, usual: int) -> int:
    """Returns how wide the latent is; raises ValueError unless it is made of whole simplices."""
    if latent is not None and (latent < GROUP or latent % GROUP):
        raise ValueError(f"latent {latent} is not allowed; it is a multiple of {GROUP}")
    return usual if latent is None else latent
