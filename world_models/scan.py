"""Scan: beliefs along windows, one step after the other, with the gradient written out.

What torch's own tape would do step by step is done at once: whatever the past does not reach is
computed for all steps beforehand, and the gradients of all weights are one product each. Float32
on the CPU; it knows the layers of an RSSM, not what they are for. `RSSM.follow` says what is found.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..blocks import block_linear
from ..fused import choose, gated, gated_backward, norm_silu, norm_silu_backward
from ..kernels import product
from ..nets import linear


def scan(
    core, posterior, action: Tensor, tokens: Tensor, first: Tensor, noise: Tensor,
    start: tuple[Tensor, Tensor], unimix: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Returns states (b, t, deter), choices (b, t, stoch, classes) and the latter's logits.

    core: a BlockGRU of (categories, action). posterior: an MLP of one layer and a Linear, of the
    state and the tokens. action (b, t, nu), tokens (b, t, ·), first (b, t) bool, noise (b, t,
    stoch), start: state and choices (b, ·) before the windows; no gradient goes back to them.
    """
    action, tokens, first, noise = (
        x.transpose(0, 1).contiguous() for x in (action, tokens, first, noise)
    )
    (of_state, of_choice, of_action), (hidden, last) = core.branches, posterior
    width, units = of_state[0].weight.shape[1], of_state[0].weight.shape[0]
    own, shared = core.parts()
    head = hidden[0].weight
    deter, stoch, logits = _Scan.apply(
        linear(of_action(action), shared[:, 2 * units :], core.mix.bias),
        linear(tokens, head[:, width:], hidden[0].bias),
        first, noise, start[0], start[1].flatten(1), unimix,
        of_state[0].weight, of_state[0].bias, of_state[1].gain,
        of_choice[0].weight, of_choice[0].bias, of_choice[1].gain,
        own, shared[:, : 2 * units].contiguous(), core.norm.gain,
        core.gates.weight, core.gates.bias,
        head[:, :width].contiguous(), hidden[1].gain, last.weight, last.bias,
    )  # fmt: skip
    shape = noise.shape[2], -1
    return tuple(
        x.transpose(0, 1) for x in (deter, stoch.unflatten(2, shape), logits.unflatten(2, shape))
    )


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, heard, seen, first, noise, deter, stoch, unimix, *weights):
        w_d, b_d, g_d, w_s, b_s, g_s, own, both, g_m, w_g, b_g, w_q, g_q, w_l, b_l = weights
        blocks, (t, b, s) = len(own), noise.shape
        none, none_q = torch.zeros_like(g_m), torch.zeros_like(g_q)
        anew, tape = first.any(1).tolist(), []
        for i in range(t):
            if anew[i]:
                deter = deter.masked_fill(first[i, :, None], 0)
                stoch = stoch.masked_fill(first[i, :, None], 0)
            y_d, y_s = product(deter, w_d), product(stoch, w_s)
            x = torch.cat((norm_silu(y_d, b_d, g_d), norm_silu(y_s, b_s, g_s)), 1)
            y = torch.addmm(heard[i], x, both.t()).add_(block_linear(_part(deter, blocks), own))
            m = norm_silu(y, none, g_m)
            gates = block_linear(_part(m, blocks), w_g)
            after = gated(gates, b_g, deter, blocks)
            q = torch.addmm(seen[i], after, w_q.t())
            u = norm_silu(q, none_q, g_q)
            logits = product(u, w_l, b_l)
            drawn = choose(logits.view(b, s, -1), noise[i], unimix).flatten(1)
            tape.append((deter, stoch, y_d, y_s, x, y, m, gates, after, q, u, logits, drawn))
            deter, stoch = after, drawn
        *tape, drawn = (torch.stack(column) for column in zip(*tape, strict=True))
        ctx.anew, ctx.unimix, ctx.stoch = anew, unimix, s
        ctx.save_for_backward(first, *tape, *weights)
        return tape[8], drawn, tape[11]

    @staticmethod
    @once_differentiable
    def backward(ctx, of_deter, of_stoch, of_logits):
        first, *saved = ctx.saved_tensors
        deter, stoch, y_d, y_s, x, y, m, gates, after, q, u, logits = saved[:12]
        w_d, b_d, g_d, w_s, b_s, g_s, own, both, g_m, w_g, b_g, w_q, g_q, w_l, _ = saved[12:]
        blocks, units = len(own), len(b_d)
        none, none_q = torch.zeros_like(g_m), torch.zeros_like(g_q)
        back_own, back_g = own.transpose(1, 2), w_g.transpose(1, 2)
        p = logits.unflatten(2, (ctx.stoch, -1)).softmax(-1)
        past, past_s, found = torch.zeros_like(deter[0]), torch.zeros_like(stoch[0]), []
        for i in reversed(range(len(first))):
            chosen = (of_stoch[i] + past_s).view_as(p[i])
            through = torch.ops.aten._softmax_backward_data(chosen, p[i], -1, p.dtype).flatten(1)
            l_ = torch.add(of_logits[i], through, alpha=1 - ctx.unimix)
            q_, _, of_gq = norm_silu_backward(q[i], none_q, g_q, product(l_, w_l.t()))
            now = torch.addmm(of_deter[i] + past, q_, w_q)
            gates_, past = gated_backward(gates[i], b_g, deter[i], blocks, now)
            m_ = block_linear(_part(gates_, blocks), back_g)
            y_, _, of_gm = norm_silu_backward(y[i], none, g_m, m_)
            x_d, x_s = (part.contiguous() for part in product(y_, both.t()).split(units, 1))
            d_, _, of_gd = norm_silu_backward(y_d[i], b_d, g_d, x_d)
            s_, _, of_gs = norm_silu_backward(y_s[i], b_s, g_s, x_s)
            past = past.add_(block_linear(_part(y_, blocks), back_own)).addmm_(d_, w_d)
            past_s = product(s_, w_s.t())
            if ctx.anew[i]:
                past = past.masked_fill(first[i, :, None], 0)
                past_s = past_s.masked_fill(first[i, :, None], 0)
            found.append((l_, q_, gates_, y_, d_, s_, of_gq, of_gm, of_gd, of_gs))
        columns = zip(*reversed(found), strict=True)
        l_, q_, gates_, y_, d_, s_, of_gq, of_gm, of_gd, of_gs = map(torch.stack, columns)
        return (
            y_, q_, None, None, None, None, None,
            _weight(d_, deter), d_.sum((0, 1)), of_gd.sum(0),
            _weight(s_, stoch), s_.sum((0, 1)), of_gs.sum(0),
            _blocks(deter, y_, blocks), _weight(y_, x), of_gm.sum(0),
            _blocks(m, gates_, blocks), gates_.sum((0, 1)),
            _weight(q_, after), of_gq.sum(0), _weight(l_, u), l_.sum((0, 1)),
        )  # fmt: skip


def _part(x: Tensor, blocks: int) -> Tensor:
    return x.unflatten(-1, (blocks, -1))


def _weight(grad: Tensor, x: Tensor) -> Tensor:
    """Returns the gradient (o, i) of a linear layer's weight over all steps (t, b, ·)."""
    return product(grad.flatten(0, 1).t(), x.flatten(0, 1).t())


def _blocks(x: Tensor, grad: Tensor, blocks: int) -> Tensor:
    """Returns the gradient (blocks, i, o) of a block-diagonal layer's weight over all steps."""
    x, grad = (_part(v.flatten(0, 1), blocks) for v in (x, grad))
    return torch.bmm(x.permute(1, 2, 0), grad.transpose(0, 1))
