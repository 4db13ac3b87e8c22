"""Which experts serve a token, with which gates, and how evenly they are used.

The rows of Csordas, Irie, Schmidhuber, "Approximating Two-Layer Feedforward Networks for Efficient
Transformers" (2023), each a function from the router's logits `[N, E]` to a `Routing`. The experts
are those with the largest logits (sigmoid and softmax keep their order), and gradients reach the
logits through the gates and the balance loss. N counts all tokens of a batch. Where they are shared
out to several processes, the balance is that of all tokens.
"""

import math
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed import ProcessGroup

SINKHORN_TOLERANCE = 0.01
SINKHORN_ITERATIONS = 100


class Routing(NamedTuple):
    """K experts for each of N tokens.

    Where expert dropout leaves a token fewer than K experts, the missing ones have gate 0, whatever
    their index.
    """

    expert_index: Tensor  # [N, K] int64, the best first
    gate: Tensor  # [N, K], what the hidden vector of the expert is multiplied with
    balance_loss: Tensor  # scalar, without its weight


def sigmoid_routing(
    logits: Tensor,
    top_k: int,
    kept: Tensor | None = None,
    group: ProcessGroup | None = None,
) -> Routing:
    """sigma-MoE: the gate is the sigmoid of the logit; entropy loss.

    Args:
        logits: `[N, E]`, float32 or wider.
        top_k: K.
        kept: bool `[N, E]`, False where expert dropout excludes an expert (Eq. 22): it is never
            selected, and the gates of the others are not rescaled. All if None.
        group: the processes that each have some of the tokens of the batch, for the balance; this
            one alone if None. All of them must call, and the loss is the same in all.
    """
    expert_index, chosen = _select(logits, top_k, kept)
    gate = _gates(logits.sigmoid(), expert_index, chosen)
    return Routing(expert_index, gate, entropy_loss(logits, group))


def softmax_before_top_k(
    logits: Tensor,
    top_k: int,
    kept: Tensor | None = None,
    group: ProcessGroup | None = None,
) -> Routing:
    """The "softmax (no renorm.)" row: the gate is the softmax over all experts; entropy loss.

    Arguments as in `sigmoid_routing`.
    """
    expert_index, chosen = _select(logits, top_k, kept)
    gate = _gates(logits.softmax(-1), expert_index, chosen)
    return Routing(expert_index, gate, entropy_loss(logits, group))


def softmax_after_top_k(
    logits: Tensor,
    top_k: int,
    kept: Tensor | None = None,
    group: ProcessGroup | None = None,
) -> Routing:
    """The "softmax (renorm.)" row: the gate is the softmax over the selected experts (Eqs. 23-25);
    entropy loss.

    Arguments as in `sigmoid_routing`.
    """
    expert_index, chosen = _select(logits, top_k, kept)
    return Routing(
        expert_index, _normalized_gates(logits, expert_index, chosen), entropy_loss(logits, group)
    )


def switch_routing(
    logits: Tensor,
    top_k: int,
    kept: Tensor | None = None,
    group: ProcessGroup | None = None,
) -> Routing:
    """Switch Transformer (Fedus et al., 2022; Eqs. 15-17): the gate is the softmax over all
    experts; loss of `switch_loss`. Published with K = 1.

    Arguments as in `sigmoid_routing`.
    """
    expert_index, chosen = _select(logits, top_k, kept)
    probability = logits.softmax(-1)
    gate = _gates(probability, expert_index, chosen)
    return Routing(expert_index, gate, switch_loss(probability, expert_index, chosen, group))


def noisy_top_k_routing(
    logits: Tensor,
    top_k: int,
    kept: Tensor | None = None,
    group: ProcessGroup | None = None,
) -> Routing:
    """Sparsely-gated mixture (Shazeer et al., 2017; Eqs. 13-14): the gate is the softmax over the
    selected experts; the loss is the coefficient of variation of the summed gates of each expert.

    Arguments as in `sigmoid_routing`; the noise of training is in the logits (`noisy_logits`).
    """
    expert_index, chosen = _select(logits, top_k, kept)
    gate = _normalized_gates(logits, expert_index, chosen)
    importance = _sum(torch.zeros_like(logits).scatter(1, expert_index, gate), group)
    return Routing(expert_index, gate, coefficient_of_variation(importance))


def sinkhorn_routing(
    logits: Tensor,
    top_k: int,
    kept: Tensor | None = None,
    group: ProcessGroup | None = None,
) -> Routing:
    """S-BASE in training (Clark et al., 2022; Eqs. 18-19): the experts are the largest of the
    balanced assignment of `sinkhorn` over all tokens; gate and loss are those of `sigmoid_routing`,
    which is what it does in evaluation.

    Arguments as in `sigmoid_routing`.
    """
    expert_index, chosen = _select(sinkhorn(logits, group), top_k, kept)
    gate = _gates(logits.sigmoid(), expert_index, chosen)
    return Routing(expert_index, gate, entropy_loss(logits, group))


def noisy_logits(logits: Tensor, noise_logits: Tensor) -> Tensor:
    """`logits + N(0, 1) softplus(noise_logits)`, both `[N, E]` (Eq. 13). The noise comes from
    PyTorch's default generator, as that of its dropout."""
    noise = torch.randn_like(logits)
    return logits + noise * F.softplus(noise_logits)


def expert_dropout_mask(logits: Tensor, probability: float) -> Tensor:
    """bool `[N, E]`, False with this probability, drawn for each token and expert by PyTorch's
    default generator, as its dropout is."""
    return torch.rand_like(logits) >= probability


def entropy_loss(logits: Tensor, group: ProcessGroup | None = None) -> Tensor:
    """Negative entropy of the mean expert usage, in nats: `sum_e p_e log p_e` with
    `p = mean_n softmax(logits_n)` (Eqs. 20-21), computed in log space. -log E for even usage.

    The softmax is meant, also where the gates are sigmoids. 0 without tokens.
    """
    num_tokens = _num_tokens(logits, group)
    if not num_tokens:
        return logits.sum()
    log_p = _logsumexp(logits.log_softmax(-1), group) - math.log(num_tokens)
    return (log_p.exp() * log_p).sum()


def switch_loss(
    probability: Tensor,
    expert_index: Tensor,
    chosen: Tensor | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """`E sum_e f_e p_e` (Eqs. 15-17): f the fraction of the routes that go to an expert, without
    gradients, p the mean of `probability [N, E]`. 1 for even usage, 0 without tokens.

    Of `expert_index [N, K]` those count as routes that `chosen`, bool `[N, K]`, has (all if None):
    an index that stands for a missing expert is none.

    The published code takes the mean over the experts for E times the sum: E^2 times less.
    """
    num_experts = probability.shape[1]
    num_tokens = _num_tokens(probability, group)
    counted = torch.ones_like(expert_index) if chosen is None else chosen
    each = torch.zeros_like(probability).scatter(1, expert_index, counted.to(probability.dtype))
    routes = _sum(each, group)
    fraction = routes / routes.sum().clamp_min(1)  # where expert dropout leaves no expert at all
    return num_experts / max(num_tokens, 1) * (fraction * _sum(probability, group)).sum()


def coefficient_of_variation(x: Tensor) -> Tensor:
    """Standard deviation over mean of `x [E]`; 0, with gradient 0, where all are equal."""
    mean = x.mean()
    least = torch.finfo(x.dtype).tiny  # where expert dropout leaves no expert at all
    return torch.linalg.vector_norm(x - mean) / (math.sqrt(len(x)) * mean.clamp_min(least))


@torch.no_grad()
def sinkhorn(logits: Tensor, group: ProcessGroup | None = None) -> Tensor:
    """Logarithm of the balanced assignment `exp(logits + a_n + b_e)`: every token has mass 1, every
    expert N/E.

    Alternating normalisation in log space (Sinkhorn, 1967), experts then tokens, until the mass of
    every expert is within 1 % of N/E, for 100 iterations at most. The published code adds the
    potentials with the wrong sign on one side: its marginals do not converge.

    Args:
        logits: `[N, E]`, of all tokens of a batch, or with a `group` of those of this process.

    Returns:
        `[N, E]`; token masses are exact.
    """
    target = _num_tokens(logits, group) / logits.shape[1]
    assignment = logits.log_softmax(1)
    for _ in range(SINKHORN_ITERATIONS):
        mass = _logsumexp(assignment, group)
        excess = mass.exp() / target - 1
        if excess.abs().max() <= SINKHORN_TOLERANCE:
            break
        assignment = (assignment - mass).log_softmax(1)
    return assignment


def _select(score: Tensor, top_k: int, kept: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The experts `[N, K]` with the largest `score [N, E]`, and which of them are none of the
    dropped ones (None: all)."""
    if not 1 <= top_k <= score.shape[1]:
        raise ValueError(f"top_k must be in 1 ... num_experts = {score.shape[1]}, got {top_k}")
    score = score.detach()
    if kept is None:
        return score.topk(top_k).indices, None
    expert_index = score.masked_fill(~kept, -torch.inf).topk(top_k).indices
    return expert_index, kept.gather(1, expert_index)


def _gates(values: Tensor, expert_index: Tensor, chosen: Tensor | None) -> Tensor:
    """`values [N, E]` of the selected experts, `[N, K]`."""
    gate = values.gather(1, expert_index)
    return gate if chosen is None else gate.masked_fill(~chosen, 0)


def _normalized_gates(logits: Tensor, expert_index: Tensor, chosen: Tensor | None) -> Tensor:
    """The softmax over the selected experts, `[N, K]`."""
    selected = logits.gather(1, expert_index)
    if chosen is None:
        return selected.softmax(-1)
    # Not -inf: a token without any expert would get 0 / 0.
    lowest = torch.finfo(logits.dtype).min
    return selected.masked_fill(~chosen, lowest).softmax(-1).masked_fill(~chosen, 0)


def _num_tokens(x: Tensor, group: ProcessGroup | None) -> int:
    """N of `x [N, E]`, summed over the processes."""
    if group is None:
        return len(x)
    count = torch.tensor(len(x), device=x.device)
    dist.all_reduce(count, group=group)
    return int(count)


def _sum(x: Tensor, group: ProcessGroup | None) -> Tensor:
    """`x [N, E]` summed over all tokens, also those of the other processes."""
    total = x.sum(0)
    if group is None:
        return total
    summed: Tensor = _SumOverProcesses.apply(total, group)
    return summed


def _logsumexp(x: Tensor, group: ProcessGroup | None) -> Tensor:
    """`logsumexp` of `x [N, E]` over all tokens, also those of the other processes."""
    if group is None:
        return x.logsumexp(0)
    mine = x.logsumexp(0, keepdim=True)
    largest = mine.detach().clone()
    dist.all_reduce(largest, op=dist.ReduceOp.MAX, group=group)
    return _sum((mine - largest).exp(), group).log() + largest[0]


class _SumOverProcesses(torch.autograd.Function):
    """Sum of a tensor over the processes; a gradient of it is summed, too. torch has it under a
    name that is deprecated or under a private one, as the version is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        total = x.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _SumOverProcesses.apply(gradient.contiguous(), ctx.group), None
