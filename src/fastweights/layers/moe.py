"""Mixtures of experts: sigma-MoE and its relatives, one layer with a choice of router."""

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from fastweights.layers.initialization import normal
from fastweights.layers.layer import FeedForward
from fastweights.ops.expert_matmul import expert_down, expert_up, sort_routes
from fastweights.ops.precision import autocast_off, widest_dtype
from fastweights.ops.routing import (
    Routing,
    expert_dropout_mask,
    noisy_logits,
    noisy_top_k_routing,
    sigmoid_routing,
    sinkhorn_routing,
    softmax_after_top_k,
    softmax_before_top_k,
    switch_routing,
)

RouterName = Literal[
    "sigmoid", "softmax_before_top_k", "softmax_after_top_k", "switch", "noisy_top_k", "s_base"
]
MoEInitialization = Literal["ff_dim", "expert_dim", "switch"]

ROUTINGS: dict[str, Callable[[Tensor, int, Tensor | None, ProcessGroup | None], Routing]] = {
    "sigmoid": sigmoid_routing,
    "softmax_before_top_k": softmax_before_top_k,
    "softmax_after_top_k": softmax_after_top_k,
    "switch": switch_routing,
    "noisy_top_k": noisy_top_k_routing,
    "s_base": sinkhorn_routing,
}
INITIALIZATIONS: tuple[str, ...] = "ff_dim", "expert_dim", "switch"
SWITCH_SCALE = 0.1


class Router(nn.Module):
    """Tokens to experts: `fastweights.ops.routing`, with the weights of the logits.

    Args:
        dim: D; num_experts: E; top_k: K.
        kind: the function of the logits `W x`. "noisy_top_k" adds noise to them in training, as
            large as the softplus of a second, learned map, which starts at 0 (Shazeer et al.,
            2017). "s_base" balances them in training only, and is "sigmoid" in evaluation.
        expert_dropout: probability with which an expert is out of the choice of a token in
            training.
        std: of the initial weights.
        equal_norms: rescale the initial rows to the same norm, `std` sqrt(D).
        generator: of the initial weights; PyTorch's default one if None.

    Attributes:
        process_group: in training, the balance counts the tokens of all these processes. None at
            first: those of this process alone.
    """

    process_group: ProcessGroup | None = None

    def __init__(
        self,
        dim: int,
        num_experts: int,
        top_k: int,
        kind: RouterName,
        expert_dropout: float,
        std: float,
        equal_norms: bool,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if kind not in ROUTINGS:
            raise ValueError(f"router must be one of {', '.join(ROUTINGS)}, got {kind!r}")
        if not 1 <= top_k <= num_experts:
            raise ValueError(f"top_k must be in 1 ... num_experts, got {top_k=}, {num_experts=}")
        _check_probability("expert_dropout", expert_dropout)
        self.kind, self.top_k, self.expert_dropout = kind, top_k, expert_dropout
        self.weight = normal(num_experts, dim, std=std, generator=generator)
        if equal_norms:
            with torch.no_grad():
                self.weight.mul_(std * math.sqrt(dim) / self.weight.norm(dim=1, keepdim=True))
        if kind == "noisy_top_k":
            self.noise = nn.Parameter(torch.zeros(num_experts, dim))

    def forward(self, x: Tensor) -> Routing:
        """`x [N, D]` -> experts, gates and the balance loss, computed in float32 at least."""
        kind: str = self.kind
        with autocast_off(x):
            logits = self._logits(x, self.weight)
            if self.training and kind == "noisy_top_k":
                logits = noisy_logits(logits, self._logits(x, self.noise))
            if not self.training and kind == "s_base":
                kind = "sigmoid"
            kept = None
            if self.training and self.expert_dropout:
                kept = expert_dropout_mask(logits, self.expert_dropout)
            group = self.process_group if self.training else None
            return ROUTINGS[kind](logits, self.top_k, kept, group)

    def _logits(self, x: Tensor, weight: Tensor) -> Tensor:
        dtype = widest_dtype(x, weight)
        return F.linear(x.to(dtype), weight.to(dtype))


class MoE(FeedForward):
    """Mixture of experts (Csordas, Irie, Schmidhuber, 2023): the K best of E two-layer networks for
    every token, `y = sum_e W2^e (gate_e relu(W1^e x))`.

    The defaults are sigma-MoE. Rows of `up` are the keys and rows of `down` the values of the
    two-layer network that the experts cut into groups.

    Args:
        dim: D.
        num_experts: E; expert_dim: G, the hidden width of one; top_k: K.
        router: see `Router`.
        balance_weight: gamma, the factor of the balance loss (entropy; for "switch" and
            "noisy_top_k" their own).
        expert_dropout: delta, the probability with which an expert is out of the choice of a token
            in training.
        hidden_dropout: probability, on the gated hidden vector ("standard dropout"). Not the
            model's dropout: sigma-MoE has none there.
        gated: experts with `relu(W1 x) * V x` for `relu(W1 x)` (Shazeer, 2020). The ReLU stays, so
            a key that does not match still adds nothing; half as many weights more.
        bias: of both maps of an expert, 0 at first; the second one is gated as the rest is.
        initialization: variance of `down`: "ff_dim" 2 / (E G L), "expert_dim" ("standard init")
            2 / (G L). "switch" is "expert_dim" with all variances times 0.1 and router rows as
            drawn. The variance of `up` and router is 2 / (D L), router rows have equal norms.
        num_layers: L, of the model.
        generator: of the initial weights; PyTorch's default one if None.
    """

    def __init__(
        self,
        dim: int,
        num_experts: int = 16,
        expert_dim: int = 128,
        top_k: int = 4,
        router: RouterName = "sigmoid",
        balance_weight: float = 1e-3,
        expert_dropout: float = 0.0,
        hidden_dropout: float = 0.0,
        gated: bool = False,
        bias: bool = False,
        initialization: MoEInitialization = "ff_dim",
        num_layers: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        sizes = {
            "dim": dim,
            "num_experts": num_experts,
            "expert_dim": expert_dim,
            "num_layers": num_layers,
        }
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} must be >= 1, got {size}")
        if not (math.isfinite(balance_weight) and balance_weight >= 0):
            raise ValueError(f"balance_weight must be finite and >= 0, got {balance_weight}")
        _check_probability("hidden_dropout", hidden_dropout)
        if initialization not in INITIALIZATIONS:
            names = ", ".join(INITIALIZATIONS)
            raise ValueError(f"initialization must be one of {names}, got {initialization!r}")
        self.num_experts, self.balance_weight, self.gated = num_experts, balance_weight, gated
        switch = initialization == "switch"
        scale = 2 / num_layers * (SWITCH_SCALE if switch else 1)
        std = math.sqrt(scale / dim)
        fan_in = expert_dim * (num_experts if initialization == "ff_dim" else 1)
        hidden = expert_dim * (2 if gated else 1)
        self.router = Router(
            dim, num_experts, top_k, router, expert_dropout, std, not switch, generator
        )
        self.up = normal(num_experts, hidden, dim, std=std, generator=generator)
        self.down = normal(
            num_experts, expert_dim, dim, std=math.sqrt(scale / fan_in), generator=generator
        )
        self.up_bias = nn.Parameter(torch.zeros(num_experts, hidden)) if bias else None
        self.down_bias = nn.Parameter(torch.zeros(num_experts, dim)) if bias else None
        self.dropout = nn.Dropout(hidden_dropout)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        tokens = x.flatten(0, -2)
        routing = self.router(tokens)
        y = self._experts(tokens, routing.expert_index, routing.gate)
        return y.view_as(x), self.balance_weight * routing.balance_loss

    def active_parameters(self) -> int:
        """The router and K experts."""
        of_router = sum(parameter.numel() for parameter in self.router.parameters())
        of_experts = super().active_parameters() - of_router
        return of_router + of_experts * self.router.top_k // self.num_experts

    def _experts(self, x: Tensor, expert_index: Tensor, gate: Tensor) -> Tensor:
        """`x [N, D]`, `expert_index` and `gate [N, K]` -> `y [N, D]`."""
        routes = sort_routes(expert_index, self.num_experts)
        hidden = expert_up(x, self.up, routes)
        if self.up_bias is not None:
            hidden = hidden + F.embedding(routes.expert, self.up_bias).to(hidden.dtype)
        if self.gated:
            key, factor = hidden.chunk(2, -1)
            hidden = key.relu() * factor
        else:
            hidden = hidden.relu_()
        hidden = hidden * gate.flatten()[routes.order, None].to(hidden.dtype)
        y = expert_down(self.dropout(hidden), self.down, routes)
        if self.down_bias is not None:
            weight = gate.to(self.down_bias.dtype)
            bias = F.embedding_bag(
                expert_index, self.down_bias, mode="sum", per_sample_weights=weight
            )
            y = y + bias.to(y.dtype)
        return y


def _check_probability(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be in [0, 1), got {value}")
