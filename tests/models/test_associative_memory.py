"""The model against the plain statement of its equations: keys made at every position, memories
written step by step."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from fastweights.models.associative_memory import AssociativeMemory
from fastweights.ops.clamped_delta_rule import clamped_delta_rule_recurrent
from fastweights.ops.delta_rule import delta_rule_recurrent
from fastweights.ops.feature_maps import dpfp, favor_features, sum_normalize
from fastweights.ops.linear_attention import linear_attention_recurrent
from fastweights.ops.normalized_delta_rule import (
    NORMALIZER_EPS,
    normalized_delta_rule_recurrent,
)
from fastweights.tasks.retrieval import ask_all, draw_pairs
from tests.ops.compare import assert_near

S, T = 6, 9


def make(
    rule: str, feature_map: str = "dpfp", num_keys: int = S, seed: int = 0, **options: object
) -> AssociativeMemory:
    settings = {
        "feature_normalization": "sum" if rule == "delta" else None,
        "attention_normalizer": rule == "sum",
        "dpfp_nu": 2,
        "num_random_features": 16,
        "favor_temperature": None,
        "favor_redraw": True,
        "head_dim": 8,
        **options,
    }
    generator = torch.Generator().manual_seed(seed)
    model = AssociativeMemory(num_keys, rule, feature_map, **settings, generator=generator)
    return model.double()


def batch() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    keys, values = draw_pairs(4, S, T, True, generator)
    return keys, values, ask_all(keys, values, S).queries


@pytest.mark.parametrize("rule", ["softmax", "sum", "delta", "clamped_delta"])
def test_reads_what_a_memory_written_step_by_step_holds(rule: str) -> None:
    model = make(rule)
    keys, values, queries = batch()
    stored, v = model.key_embedding[keys], F.one_hot(values, S).double()
    k = model.to_key(torch.cat([v, stored], -1))
    q = model.to_query(model.key_embedding[queries])
    if rule == "softmax":
        want = (q @ k.mT / 8**0.5).softmax(-1) @ v
    else:
        k, q = dpfp(k, 2), dpfp(q, 2)
        if rule == "sum":
            _, state = linear_attention_recurrent(k[:, :, None], k[:, :, None], v[:, :, None])
            want = q @ state.memory[:, 0] / ((q * state.key_sum).sum(-1, keepdim=True) + 1e-6)
        elif rule == "clamped_delta":
            beta = model.to_beta(torch.cat([v, stored], -1)).sigmoid()
            k, v = k[:, :, None], v[:, :, None]
            _, memory = clamped_delta_rule_recurrent(k, k, v, beta)
            want = F.layer_norm(q @ memory[:, 0], (S,))
        else:
            k, q = sum_normalize(k), sum_normalize(q)
            beta = model.to_beta(torch.cat([v, stored], -1)).sigmoid()
            _, memory = delta_rule_recurrent(k[:, :, None], k[:, :, None], v[:, :, None], beta)
            want = q @ memory[:, 0]
    torch.testing.assert_close(model(keys, values, queries), want)


def test_the_sum_rule_with_favor() -> None:
    model = make("sum", "favor", favor_redraw=False)
    keys, values, queries = batch()
    stored, v = model.key_embedding[keys], F.one_hot(values, S).double()
    k = model.to_key(torch.cat([v, stored], -1))
    q = model.to_query(model.key_embedding[queries])
    k, q = (favor_features(x, model.feature_map.projection, 8**-0.25) for x in (k, q))
    weights = torch.einsum("bmf,btf->bmt", q, k)
    want = weights / (weights.sum(-1, keepdim=True) + 1e-6) @ v
    torch.testing.assert_close(model(keys, values, queries), want)
    torch.testing.assert_close(model(keys, values, queries[:, :1]), want[:, :1])


def test_learned_are_the_embeddings_of_the_keys_and_the_maps() -> None:
    """e = int(2.2 S): S e + (S + e + 1) d + (e + 1) d + (S + e + 1)."""
    e = int(2.2 * S)
    count = sum(p.numel() for p in make("delta").parameters())
    assert count == S * e + (S + e + 1) * 8 + (e + 1) * 8 + S + e + 1
    bound = 8**-0.5
    assert 0.9 * bound < make("sum").to_key.weight.abs().max() <= bound


def test_favor_draws_new_directions_the_same_for_keys_and_queries() -> None:
    model = make("sum", "favor")
    before = model.feature_map.projection.clone()
    model(*batch())
    assert not torch.equal(before, model.feature_map.projection)
    fixed = make("sum", "favor", favor_redraw=False)
    fixed(*batch())
    assert torch.equal(before, fixed.feature_map.projection)


def test_one_pair_is_read_exactly_by_its_own_key() -> None:
    """With one stored pair, every attention-normalised read is that value."""
    model = make("sum", "elu_plus_one")
    keys, values = torch.tensor([[2]]), torch.tensor([[5]])
    read = model(keys, values, torch.tensor([[2, 0]]))
    torch.testing.assert_close(
        read[0], F.one_hot(torch.tensor([5, 5]), S).double(), atol=1e-5, rtol=0
    )


def test_keys_with_tiny_features_have_gradients_in_float32() -> None:
    """FAVOR+ at temperature 1: with a bias of 3.5, those of a key add up to 4e-17 .. 2e-7."""
    found = []
    for dtype in (torch.float32, torch.float64):
        model = make("delta", "favor", favor_redraw=False, favor_temperature=1.0).to(dtype)
        torch.nn.init.constant_(model.to_key.bias, 3.5)
        model(*batch())[..., 0].sum().backward()
        found.append([x.grad for x in model.parameters()])
    got, want = found
    assert_near(got, want, bound=1e-3)


def test_the_delta_rule_with_attention_normalisation() -> None:
    model = make("delta", feature_normalization=None, attention_normalizer=True)
    keys, values, queries = batch()
    stored, v = model.key_embedding[keys], F.one_hot(values, S).double()
    k = dpfp(model.to_key(torch.cat([v, stored], -1)), 2)[:, :, None]
    q = dpfp(model.to_query(model.key_embedding[queries]), 2)
    beta = model.to_beta(torch.cat([v, stored], -1)).sigmoid()
    _, state = normalized_delta_rule_recurrent(k, k, v[:, :, None], beta)
    want = q @ state.memory[:, 0] / ((q * state.key_sum).sum(-1, keepdim=True) + NORMALIZER_EPS)
    torch.testing.assert_close(model(keys, values, queries), want)


@pytest.mark.parametrize(
    ("rule", "feature_map", "features"),
    [("sum", "elu_plus_one", 2), ("sum", "dpfp", 4), ("delta", "dpfp", 4)],
)
@given(num_keys=st.integers(5, 12), seed=st.integers(0, 10_000))
def test_a_memory_holds_no_more_associations_than_it_has_features(
    rule: str, feature_map: str, features: int, num_keys: int, seed: int
) -> None:
    """Of S keys, each stored once with one of S values, even the best linear map of what is read
    leaves the floor 1/2 (1 - d/S)."""
    model = make(rule, feature_map, num_keys, seed, head_dim=2, dpfp_nu=1)
    keys, values = draw_pairs(3, num_keys, num_keys, False, torch.Generator().manual_seed(seed))
    asked = ask_all(keys, values, num_keys)
    with torch.no_grad():
        read = model(keys, values, asked.queries)
    wanted = F.one_hot(asked.targets, num_keys).double()
    lowest = (1 - features / num_keys) / 2
    best = read @ torch.linalg.pinv(read, rtol=1e-9) @ wanted
    for each in (read, best):
        loss = (wanted - each).square().sum(-1).mean(-1) / 2
        assert (loss >= lowest - 1e-6).all()
    assert (torch.linalg.matrix_rank(read, rtol=1e-9) <= features).all()


def test_training_stays_above_the_floor() -> None:
    """16 keys, 8 features; 0.5 is a memory that reads nothing."""
    num_keys, features = 16, 8
    model = make("sum", "dpfp", num_keys, head_dim=4, dpfp_nu=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(600):
        keys, values = draw_pairs(32, num_keys, num_keys, False, generator)
        asked = ask_all(keys, values, num_keys)
        wanted = F.one_hot(asked.targets, num_keys).double()
        loss = (wanted - model(keys, values, asked.queries)).square().sum(-1).mean() / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    lowest = (1 - features / num_keys) / 2
    assert min(losses) >= lowest
    assert losses[-1] < 0.4
