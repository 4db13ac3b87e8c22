"""Selection, gates and balance losses, against the equations written out."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fastweights.ops.routing import (
    coefficient_of_variation,
    entropy_loss,
    expert_dropout_mask,
    noisy_logits,
    noisy_top_k_routing,
    sigmoid_routing,
    sinkhorn,
    sinkhorn_routing,
    softmax_after_top_k,
    softmax_before_top_k,
    switch_loss,
    switch_routing,
)

ROUTINGS = [
    sigmoid_routing,
    softmax_before_top_k,
    softmax_after_top_k,
    switch_routing,
    noisy_top_k_routing,
    sinkhorn_routing,
]


def make_logits(N: int = 50, E: int = 6, spread: float = 2.0) -> Tensor:
    """Biased: the first experts are liked better."""
    g = torch.Generator().manual_seed(0)
    return torch.randn(N, E, generator=g, dtype=torch.float64) - torch.linspace(0, spread, E)


@pytest.mark.parametrize("top_k", [1, 3, 6])
def test_gates_are_those_of_the_equations(top_k):
    logits = make_logits()
    value, want_index = logits.topk(top_k)
    probability = logits.exp() / logits.exp().sum(1, keepdim=True)
    of_selected = value.exp() / value.exp().sum(1, keepdim=True)
    want = {
        sigmoid_routing: 1 / (1 + (-value).exp()),
        softmax_before_top_k: probability.gather(1, want_index),
        softmax_after_top_k: of_selected,
        switch_routing: probability.gather(1, want_index),
        noisy_top_k_routing: of_selected,
    }
    for routing, gate in want.items():
        got = routing(logits, top_k)
        torch.testing.assert_close((got.expert_index, got.gate), (want_index, gate))


def test_losses_of_even_usage():
    even = torch.zeros(12, 6, dtype=torch.float64)
    assert entropy_loss(even).item() == pytest.approx(-math.log(6))
    index = torch.arange(6).repeat(2)[:, None]
    assert switch_loss(even.softmax(1), index).item() == pytest.approx(1)
    assert coefficient_of_variation(torch.full((6,), 2.0)).item() == 0


def test_losses_are_those_of_the_equations():
    logits = make_logits()
    p = logits.softmax(1).mean(0)
    assert entropy_loss(logits).item() == pytest.approx((p * p.log()).sum().item())
    index = logits.topk(2).indices
    f = index.flatten().bincount(minlength=6) / index.numel()
    assert switch_loss(logits.softmax(1), index).item() == pytest.approx(6 * (f * p).sum().item())
    got = noisy_top_k_routing(logits, 2)
    gates = torch.zeros_like(logits).scatter(1, index, got.gate).sum(0)
    want = gates.std(correction=0) / gates.mean()
    torch.testing.assert_close(got.balance_loss, want)


def test_missing_experts_are_no_routes_of_the_switch_loss():
    """Three tokens with 0, 1 and 2 of 2 experts left."""
    logits = make_logits(3, 4)
    kept = torch.tensor([[0, 0, 0, 0], [0, 0, 1, 0], [1, 0, 0, 1]]).bool()
    f = torch.tensor([1, 0, 1, 1], dtype=torch.float64) / 3
    p = logits.softmax(1).mean(0)
    assert switch_routing(logits, 2, kept).balance_loss.item() == pytest.approx(
        4 * (f * p).sum().item()
    )


def test_entropy_of_extreme_logits_is_finite():
    logits = torch.tensor([[1e4, 0.0], [1e4, 0.0]]).requires_grad_()
    loss = entropy_loss(logits)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.isfinite().all()


def test_even_usage_has_a_finite_gradient_of_variation():
    x = torch.ones(4, requires_grad=True)
    coefficient_of_variation(x).backward()
    assert x.grad.eq(0).all()


@pytest.mark.parametrize("routing", ROUTINGS)
def test_gradcheck(routing):
    def gates_and_loss(x: Tensor) -> tuple[Tensor, Tensor]:
        return routing(x, 2)[1:]

    assert torch.autograd.gradcheck(gates_and_loss, make_logits(5, 4).requires_grad_())


@pytest.mark.parametrize("routing", ROUTINGS)
def test_dropped_experts_are_never_selected(routing):
    logits = make_logits()
    torch.manual_seed(0)
    kept = expert_dropout_mask(logits, 0.4)
    kept[0], kept[1], kept[1, 2] = False, False, True  # no expert left, and a single one
    logits.requires_grad_()
    got = routing(logits, 3, kept)
    chosen = kept.gather(1, got.expert_index)
    assert got.gate[~chosen].eq(0).all()
    assert got.gate[chosen].gt(0).all()
    survivors = kept.sum(1).clamp(max=3)
    assert chosen.sum(1).equal(survivors)
    (got.gate.sum() + got.balance_loss).backward()
    assert logits.grad.isfinite().all()
    everybody = routing(logits, 3, torch.ones_like(kept))
    torch.testing.assert_close(everybody, routing(logits, 3))


@pytest.mark.parametrize("routing", ROUTINGS)
def test_finite_without_any_expert(routing):
    logits = make_logits().requires_grad_()
    got = routing(logits, 2, torch.zeros_like(logits, dtype=torch.bool))
    (got.gate.sum() + got.balance_loss).backward()
    assert got.gate.eq(0).all()
    assert got.balance_loss.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("routing", ROUTINGS)
def test_no_tokens(routing):
    logits = torch.empty(0, 6, requires_grad=True)
    got = routing(logits, 2)
    assert got.gate.shape == got.expert_index.shape == (0, 2)
    assert got.balance_loss.item() == 0
    (got.gate.sum() + got.balance_loss).backward()
    assert logits.grad.shape == (0, 6)


@given(seed=st.integers(0, 100), scale=st.sampled_from([0.1, 1.0, 5.0]), bias=st.floats(0, 4))
def test_sinkhorn_balances_tokens_and_experts(seed, scale, bias):
    g = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(96, 8, generator=g) - bias * torch.arange(8)
    mass = sinkhorn(logits).exp()
    torch.testing.assert_close(mass.sum(1), torch.ones(96))
    torch.testing.assert_close(mass.sum(0), torch.full((8,), 12.0), rtol=0.011, atol=0)


def test_sinkhorn_scales_rows_and_columns_alone():
    """log assignment - logits = a_n + b_e."""
    logits = make_logits(20, 4)
    potential = sinkhorn(logits) - logits
    torch.testing.assert_close(
        potential - potential[:1], (potential - potential[:1])[:, :1].expand(-1, 4)
    )


def test_balanced_selection_is_more_even():
    logits = make_logits(400, 8, spread=3.0)
    counts = [
        routing(logits, 1).expert_index.flatten().bincount(minlength=8).double()
        for routing in (sigmoid_routing, sinkhorn_routing)
    ]
    plain, balanced = (coefficient_of_variation(x).item() for x in counts)
    assert balanced < 0.3 < 0.9 < plain


def test_noise_is_as_large_as_its_softplus():
    torch.manual_seed(0)
    logits = torch.full((4000, 2), 3.0)
    noisy = noisy_logits(logits, torch.tensor([0.0, 5.0]).expand(4000, 2))
    assert noisy.mean(0).tolist() == pytest.approx([3, 3], abs=0.3)
    assert noisy.std(0).tolist() == pytest.approx([math.log(2), 5.0067], rel=0.05)


@pytest.mark.parametrize("top_k", [0, 7])
def test_message_names_the_sizes(top_k):
    with pytest.raises(ValueError, match=f"1 ... num_experts = 6, got {top_k}"):
        sigmoid_routing(make_logits(), top_k)
