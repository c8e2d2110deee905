"""DreamerV3: a recurrent model that reconstructs what it sees, and an actor that learns inside it.

Acting, planning and where windows come from are not known here.
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

from ..blocks import SymexpTwoHot
from ..laprop import LaProp
from ..nets import check_bf16
from .autoencoder import Decoder, Encoder, choose_senses
from .imagination import Actor, Head, ReturnScale, actor_loss, critic_loss, lambda_returns
from .model import Belief, WorldModel, require
from .parts import Make, fit
from .recall import Recall
from .rssm import RSSM, balanced, flat
from .saving import copied, put_back

# size in millions of parameters: (deterministic state, its hidden layers, classes, depth, units)
SIZES = {
    1: (512, 64, 4, 4, 64),
    12: (2048, 256, 16, 16, 256),
    25: (3072, 384, 24, 24, 384),
    50: (4096, 512, 32, 32, 512),
    100: (6144, 768, 48, 48, 768),
    200: (8192, 1024, 64, 64, 1024),
    400: (12288, 1536, 96, 96, 1536),
}
STOCH = 32  # categorical variables
SCALES = {  # of the losses
    "reconstruction": 1.0, "reward": 1.0, "continue": 1.0, "dynamics": 1.0, "representation": 0.1,
    "actor": 1.0, "critic": 1.0, "replay_critic": 0.3,
}  # fmt: skip


class DreamerV3(WorldModel):
    """An RSSM with decoder, rewards and ends; actor and critic learn from what it imagines.

    Source: Hafner et al. 2025, Nature 640, Mastering diverse control tasks through world models,
    with losses, optimiser and constants of the authors' code of May 2026. As there, a window begins
    from the belief of the step before it as of when that was last acted in or learnt from, and may
    go from one episode into the next; steps are learnt from while their episode lasts, each once in
    a new window before any are drawn.

    Choices that differ from that code:
    - a training acts in one world at a time unless it is given n=16, as theirs does;
    - the first decisions are drawn uniformly, theirs by the untrained actor. Behind a step that was
      acted in so, or elsewhere, a window begins from nothing until the step was learnt from;
    - new windows are laid end to end; theirs leave out the step between two, which they begin from;
    - without exploring it acts by the mode of its policy, theirs always draws;
    - a reset is no decision that updates are counted by, as it is in theirs;
    - no recorded step is ever dropped, theirs keep the newest 5 million; beliefs, up to `recall`
      bytes, are kept in float16;
    - arithmetic is float32 unless `bf16`, which is theirs; there is no image but of 64 x 64.

    observation: the space of a step's observations. keys: None for all float32 vectors and 64 x 64
    images. nu: components of an action. size: one of SIZES; the authors take 1 for vectors, from
    12 on for images. episode_length: steps; windows are no longer. discrete: the nu components are
    a one-hot choice. bf16: matrix products in bfloat16 (CUDA). recall: bytes for the beliefs of
    steps; they are part of a checkpoint. compile: torch.compile all of an update but the optimiser.
    parts: networks of one's own in place of these, `{place of PARTS: what makes it}`, as
    `parts.fit` says; x is a belief as a vector.
    Raises ValueError for keys, sizes and devices that are not among those.
    """

    PARTS = {  # noqa: RUF012 (a literal, which the registry reads)
        "encoder": "steps {key: (..., ·)} to tokens (..., width); as autoencoder.Encoder",
        "rssm": "observe, imagine, follow and predict beliefs; as rssm.RSSM",
        "decoder": "beliefs' two parts to observations, and their loss; as autoencoder.Decoder",
        "reward": "x (..., d) to logits of bins",
        "goes_on": "x (..., d) to a logit (..., 1)",
        "actor": "x (..., d) to a distribution of actions; as imagination.Actor",
        "critic": "x (..., d) to logits of bins",
    }
    across = True  # windows may go from one episode into the next
    fresh = True  # and are learnt from once as soon as their steps are taken
    differentiable = True  # where categories are drawn, by the gradient of their probabilities

    def __init__(
        self,
        observation: gymnasium.spaces.Dict,
        nu: int,
        size: int = 1,
        episode_length: int = 1000,
        seed: int = 0,
        device: str | torch.device = "cpu",
        keys: Sequence[str] | None = None,
        *,
        batch_size: int = 16,
        batch_length: int = 64,
        horizon: int = 15,
        lr: float = 4e-5,
        warmup: int = 1000,
        clip: float = 0.3,
        discount: float = 1 - 1 / 333,
        lam: float = 0.95,
        entropy_coef: float = 3e-4,
        free_nats: float = 1.0,
        tau: float = 0.02,
        discrete: bool = False,
        bf16: bool = False,
        recall: int = 1 << 30,
        compile: bool = False,
        parts: Mapping[str, Make] | None = None,
    ):
        super().__init__()
        if size not in SIZES:
            raise ValueError(f"size {size} is not one of {sorted(SIZES)} (millions of parameters)")
        self.device = torch.device(device)
        if bf16:
            check_bf16(self.device)
        self.window = min(batch_length, episode_length)
        if self.window < 2 or horizon < 1:
            raise ValueError(f"windows of {self.window} steps, horizon {horizon}: take 2 and 1")
        require(
            batch_size=(batch_size, 1, inf), discount=(discount, 0.01, 1), lam=(lam, 0, 1),
            entropy_coef=(entropy_coef, 0, inf), free_nats=(free_nats, 0, inf), tau=(tau, 0, 1),
        )  # fmt: skip
        self.vectors, self.images = choose_senses(observation, keys)
        self.keys = self.vectors + self.images
        self.observation = {k: observation[k] for k in self.keys}
        self.nu, self.discount, self.batch_size, self.horizon = nu, discount, batch_size, horizon
        self.lam, self.entropy_coef, self.free_nats, self.tau = lam, entropy_coef, free_nats, tau
        self.bf16, self.two_hot = bf16, SymexpTwoHot()
        with torch.device("meta" if self.device.type == "meta" else "cpu"):
            rng = torch.Generator("cpu").manual_seed(seed)
            self._build(observation, size, discrete, recall, parts, rng)
        self.to(self.device)
        self.generator = torch.Generator("cpu" if self.device.type == "meta" else self.device)
        self.seed, self.updates = seed, 0
        learned = [p for p in self.parameters() if p.requires_grad]
        self.optimiser = LaProp(learned, lr, clip=clip, warmup=warmup)
        if compile:
            # All of an update but the optimiser, as a graph that a GPU replays without Python.
            self._losses = torch.compile(self._losses, mode="reduce-overhead")

    def _build(self, space, size: int, discrete: bool, recall: int, parts, rng) -> None:
        deter, hidden, classes, depth, units = SIZES[size]
        stoch, bins = STOCH * classes, self.two_hot.count
        senses = self.vectors, self.images
        self.encoder = Encoder(space, *senses, units, depth, rng)
        self.rssm = RSSM(self.encoder.width, self.nu, deter, hidden, STOCH, classes, rng)
        self.decoder = Decoder(space, *senses, (deter, stoch), units, depth, rng)
        self.reward = Head(deter + stoch, units, 1, bins, rng, scale=0.0)
        self.goes_on = Head(deter + stoch, units, 1, 1, rng)
        self.actor = Actor(deter + stoch, units, self.nu, discrete, rng)
        self.critic = Head(deter + stoch, units, 3, bins, rng, scale=0.0)
        self.fitted = fit(self, self.PARTS, parts, rng)
        self.slow_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.return_scale = ReturnScale()
        self.recall = Recall(deter, STOCH, classes, self.nu, recall, self.device)

    def parameter_count(self) -> int:
        """Returns how many numbers are learned; the slow critic is not counted."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def start(self, n: int) -> Belief:
        return self.rssm.start(n)

    @torch.no_grad()
    def observe(self, belief: Belief, action: Tensor, step: dict[str, Tensor], rng) -> Belief:
        """Draws the categories with `rng`, or takes the most likely where it is None."""
        self.io_contract().check_step(step, action)
        with self._casting():
            tokens, noise = self.encoder(step), self._noise(len(action), rng)
            return self.rssm.observe(belief, action, tokens, step["first"], noise)[0]

    def imagine(self, belief: Belief, action: Tensor, rng) -> tuple[Belief, Tensor, Tensor]:
        """Draws the categories with `rng`, or takes the most likely where it is None."""
        with self._casting():
            belief = self.rssm.imagine(belief, action, self._noise(len(action), rng))
            reward, on = self._judge(flat(belief))
        # The head's probability holds the discount, which the contract names apart.
        return belief, reward, (on / self.discount).clamp(max=1)

    def value(self, belief: Belief, rng) -> Tensor:
        with self._casting():
            return self.two_hot.decode(self.critic(flat(belief)))

    @torch.no_grad()
    def propose(self, belief: Belief, rng) -> Tensor:
        with self._casting():
            policy = self.actor(flat(belief))
        if rng is None:
            return policy.mode().clamp(-1, 1)
        return policy.draw(self.actor.noise(belief["deter"].shape[:1], rng)).clamp(-1, 1)

    @torch.no_grad()
    def decode(self, belief: Belief) -> dict[str, Tensor]:
        with self._casting():
            found = self.decoder(belief["deter"], belief["stoch"].flatten(1))
        return self.decoder.observation(found)

    def update(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Takes one step on windows of `window` steps; only `terminal` stops the bootstrap."""
        self.io_contract().check_batch(batch)
        # Chance is a function of the seed and the update alone: nothing else has to be saved, and
        # a checkpoint goes on on any device.
        chance = np.random.SeedSequence([self.seed, self.updates]).generate_state(1)
        self.generator.manual_seed(int(chance[0]))
        self.updates += 1
        start, chance = self._before(batch), self._chance(*batch["first"].shape)
        with self._casting():
            beliefs, total, losses, metrics = self._losses(batch, start, *chance)
        self._keep(batch, beliefs)
        total.backward()
        gradients = [p.grad for group in self.optimiser.param_groups for p in group["params"]]
        self.share.mean_([*gradients, *losses.values(), *metrics.values(), total])
        metrics["grad_norm"] = torch.nn.utils.get_total_norm(gradients)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        with torch.no_grad():
            ours, theirs = list(self.critic.parameters()), list(self.slow_critic.parameters())
            torch._foreach_lerp_(theirs, ours, self.tau)
        found = {f"{name}_loss": loss for name, loss in losses.items()}
        found |= metrics | {"total_loss": total}
        # As tensors of their own: the next update may overwrite what a graph returned.
        return dict(zip(found, torch.stack([*found.values()]).detach().unbind(), strict=True))

    def _chance(self, b: int, t: int) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Returns what draws decide by: along windows (b, t), and from each of their steps on.

        These are for the actor's horizon + 1 actions, (b t, ...), and for the states between them.
        """
        part, rng = self.share.part, self.generator
        seen, actions, states = part(lambda s: self.rssm.noise(s, rng), (b, t)), [], []
        for i in range(self.horizon + 1):
            actions.append(part(lambda s: self.actor.noise(s, rng), (b * t,)))
            if i < self.horizon:
                states.append(part(lambda s: self.rssm.noise(s, rng), (b * t,)))
        return seen, actions, states

    def _losses(self, batch: dict[str, Tensor], start, seen: Tensor, actions, states):
        """Returns the beliefs, the loss, its parts before their scales, and the other metrics."""
        beliefs, losses, metrics = self._model_losses(batch, seen, start)
        starts = {k: v.detach().flatten(0, 1) for k, v in beliefs.items()}
        x, action, reward, on = self._dream(starts, actions, states)
        found, returns, more = self._behaviour_losses(x, action, reward, on)
        boot = returns[0].view(batch["reward"].shape)
        found["replay_critic"] = self._replay_loss(batch, flat(beliefs), boot)
        losses |= found
        total = sum(SCALES[name] * loss for name, loss in losses.items())
        return beliefs, total, losses, metrics | more

    def _before(self, batch: dict[str, Tensor]) -> tuple[Belief, Tensor]:
        """Returns the beliefs and actions (b, ...) that windows go on from."""
        if "before/action" in batch:
            belief = {k: batch[f"before/{k}"] for k in ("deter", "stoch")}
            return belief, batch["before/action"]
        if "place" in batch:
            return self.recall.read(batch["place"][:, 0])
        return self.start(len(batch["first"])), torch.zeros_like(batch["action"][:, 0])

    def _model_losses(self, batch: dict[str, Tensor], noise: Tensor, start=None):
        """Returns the beliefs (b, t, ...) along the windows, the losses and the metrics."""
        action, first = batch["action"], batch["first"]
        start, before = start or self._before(batch)
        led = torch.cat([before[:, None], action[:, :-1]], 1)
        beliefs, posterior = self.rssm.follow(led, self.encoder(batch), first, noise, start)
        prior, x = self.rssm.predict(beliefs["deter"]), flat(beliefs)
        dynamics, representation = balanced(posterior, prior, self.free_nats)
        seen = self.decoder(beliefs["deter"], beliefs["stoch"].flatten(-2))
        on = (~batch["terminal"]).float() * self.discount
        losses = {
            "reconstruction": self.decoder.loss(seen, batch),
            "reward": self.two_hot.loss(self.reward(x), batch["reward"]),
            "continue": F.binary_cross_entropy_with_logits(
                self.goes_on(x)[..., 0].float(), on, reduction="none"
            ),
            "dynamics": dynamics,
            "representation": representation,
        }
        metrics = {
            "prior_entropy": -(prior.exp() * prior).sum((-2, -1)).detach().mean(),
            "posterior_entropy": -(posterior.exp() * posterior).sum((-2, -1)).detach().mean(),
        }
        return beliefs, {k: v.mean() for k, v in losses.items()}, metrics

    def _keep(self, batch: dict[str, Tensor], beliefs: Belief) -> None:
        """Keeps the beliefs (b, t, ...) along the windows of all processes."""
        if "place" not in batch:
            return
        gather = self.share.gather
        place = gather(batch["place"])[:, 1:]
        belief = {k: gather(v.detach()).flatten(0, 1) for k, v in beliefs.items()}
        self.recall.write(place.flatten(), belief, gather(batch["action"]).flatten(0, 1))

    @torch.no_grad()
    def _dream(self, belief: Belief, noise: list[Tensor], states: list[Tensor]):
        """Returns features, actions, rewards and continuations, (horizon + 1, m, ...) each.

        The actor acts from m beliefs on; no gradient comes back to them.
        """
        xs, actions = [], []
        for i, decides in enumerate(noise):
            if i:
                belief = self.rssm.imagine(belief, actions[-1], states[i - 1])
            xs.append(flat(belief))
            actions.append(self.actor(xs[-1]).draw(decides))
        x = torch.stack(xs)
        return x, torch.stack(actions), *self._judge(x)

    def _behaviour_losses(self, x: Tensor, action: Tensor, reward: Tensor, on: Tensor):
        """Returns the losses of actor and critic, the returns (horizon, m) and the metrics."""
        logits = self.critic(x)
        value = self.two_hot.decode(logits.detach())
        returns = lambda_returns(reward, on, value, self.lam)
        scale = self.return_scale(self.share.gather(returns))
        weight, policy = on.cumprod(0)[:-1], self.actor(x[:-1])
        advantage = (returns - value[:-1]) / scale
        losses = {
            "actor": actor_loss(policy, action[:-1], advantage, weight, self.entropy_coef).mean(),
            "critic": critic_loss(
                self.two_hot, logits[:-1], returns, self._slow(x[:-1]), weight
            ).mean(),
        }
        metrics = {
            "actor_entropy": policy.entropy().detach().mean(),
            "return_scale": scale,
            "imagined_return": returns.mean(),
            "imagined_reward": reward.mean(),
        }
        return losses, returns, metrics

    def _replay_loss(self, batch: dict[str, Tensor], x: Tensor, boot: Tensor) -> Tensor:
        """Returns the critic's loss on the windows; its gradient reaches the model through x.

        x: features (b, t, ...). boot: the returns (b, t) imagined from them on.
        """
        last, on = batch["last"], (~batch["terminal"]).float() * self.discount
        steps = (batch["reward"], on, boot, (~last).float() * self.lam)
        returns = lambda_returns(*(s.transpose(0, 1) for s in steps)).transpose(0, 1)
        x, weight = x[:, :-1], (~last[:, :-1]).float()
        return critic_loss(self.two_hot, self.critic(x), returns, self._slow(x), weight).mean()

    def _judge(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the reward at features x, and the probability of going on times the discount."""
        return self.two_hot.decode(self.reward(x)), torch.sigmoid(self.goes_on(x)[..., 0].float())

    @torch.no_grad()
    def _slow(self, x: Tensor) -> Tensor:
        return self.two_hot.decode(self.slow_critic(x))

    def _noise(self, n: int, rng: torch.Generator | None) -> Tensor | None:
        return None if rng is None else self.rssm.noise((n,), rng)

    def _casting(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def checkpoint(self) -> dict[str, Tensor]:
        """Returns all that the next update depends on, as contiguous tensors on the CPU."""
        chance = {"chance": torch.tensor([self.seed, self.updates])}
        return copied(self._tensors()) | chance | self.recall.save()

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Takes back what `checkpoint` gave; the updates that follow are those it would have had.

        Raises ValueError where a tensor is missing, unknown or of another shape.
        """
        own = self._tensors() | {"chance": torch.zeros(2, dtype=torch.int64)}
        kept = {k: v for k, v in tensors.items() if k.startswith("recall/")}
        put_back(own, {k: v for k, v in tensors.items() if k not in kept})
        if kept:
            self.recall.restore(kept)
        self.seed, self.updates = own["chance"].tolist()
        for group in self.optimiser.param_groups:
            group["count"] = self.updates  # one step an update

    def _tensors(self) -> dict[str, Tensor]:
        """Returns every live tensor that an update reads and writes, by name."""
        tensors = {f"model/{k}": v for k, v in self.state_dict().items()}
        names = {p: name for name, p in self.named_parameters()}
        for p, kept in self.optimiser.state.items():
            tensors |= {f"laprop/{names[p]}/{k}": v for k, v in kept.items()}
        return tensors
