"""Claims about single memories that a number can check, without any training.

What a sum-rule or a delta-rule memory can count, and which eigenvalue makes it toggle: Irie,
Csordas, Schmidhuber (2023); Grazzi et al. (2024), arXiv 2411.12537.
"""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fastweights.ops.delta_rule import delta_rule, delta_rule_recurrent, delta_rule_step
from fastweights.ops.feature_maps import elu_plus_one, sum_normalize
from fastweights.ops.linear_attention import linear_attention, linear_attention_recurrent


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def sequence(x: list[float] | Tensor) -> Tensor:
    """A series of numbers as [1, T, 1, 1]."""
    return torch.as_tensor(x).reshape(1, -1, 1, 1)


def test_attention_form_equals_the_recurrence():
    """T1: tril(phi(Q) phi(K)^T) V is the sum rule."""
    q, k = elu_plus_one(normal(2, 2, 3, 50, 8))
    v = normal(2, 3, 50, 5, seed=1)
    attention = (q @ k.mT).tril() @ v
    for form in (linear_attention, linear_attention_recurrent):
        y, _ = form(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        error = (y.transpose(1, 2) - attention).abs().max() / attention.abs().max()
        assert error < 1e-12


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
def test_delta_rule_converges_monotonically_on_one_symbol(beta):
    """T5: on a^t the memory's steps shrink by 1 - beta |k|^2 in (0, 1), so no parity."""
    T = 12
    k = sum_normalize(elu_plus_one(normal(8))).expand(1, T, 1, 8)
    v = normal(5, seed=1).expand(1, T, 1, 5)
    memories = [
        delta_rule(k[:, :t], k[:, :t], v[:, :t], torch.full((1, t, 1), beta, dtype=v.dtype))[1]
        for t in range(1, T + 1)
    ]
    steps = [(after - before).norm() for before, after in pairwise(memories)]
    predicted = 1 - beta * k[0, 0, 0].square().sum()
    assert 0 < predicted < 1
    for before, after in pairwise(steps):
        torch.testing.assert_close(after / before, predicted, atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("beta", "key_length", "smallest"), [(0.3, 0.9, 0.757), (0.999, 1.0, 0.001), (2.0, 1.0, -1.0)]
)
def test_eigenvalues_of_one_delta_step(beta, key_length, smallest):
    """T5: dS_t/dS_{t-1} has the eigenvalue 1 - beta |k|^2 once for each value, 1 otherwise.

    Non-negative for beta in (0, 1) and |k| <= 1; -1 at beta = 2 with a unit key.
    """
    K, V = 4, 2
    k = key_length * F.normalize(normal(1, 1, K), dim=-1)
    v, strength = normal(1, 1, V, seed=1), torch.full((1, 1), beta, dtype=torch.float64)

    def step(memory: Tensor) -> Tensor:
        return delta_rule_step(k, k, v, strength, memory.view(1, 1, K, V))[1].flatten()

    jacobian = torch.autograd.functional.jacobian(step, normal(K * V, seed=2))
    eigenvalues = torch.linalg.eigvalsh(jacobian)  # symmetric: I - beta k k^T for each value
    torch.testing.assert_close(jacobian, jacobian.T)
    want = torch.tensor([smallest] * V + [1.0] * (V * (K - 1)), dtype=torch.float64)
    torch.testing.assert_close(eigenvalues, want, atol=1e-12, rtol=0)


def test_linear_attention_counts_exactly():
    """T7: key 1, value +1 or -1: the output is the depth, exactly, in float32."""
    n = 10_000
    generator = torch.Generator().manual_seed(0)
    random = 2 * torch.randint(2, (n,), generator=generator) - 1
    for steps in (torch.ones(n), torch.cat([torch.ones(n), -torch.ones(n)]), random.float()):
        ones = torch.ones_like(steps)
        y, _ = linear_attention(sequence(ones), sequence(ones), sequence(steps))
        assert torch.equal(y.flatten(), steps.cumsum(0))


@pytest.mark.parametrize("beta", [0.01, 0.5, 1.0])
def test_delta_counter_saturates(beta):
    """T7: the delta counter 1 - (1 - beta)^n forgets its depth: it never passes the value."""
    n = 10_000
    ones = torch.ones(1, n, 1, 1)
    y = delta_rule(ones, ones, ones, torch.full((1, n, 1), beta))[0].flatten()
    assert y.max() <= 1 + 1e-5
    assert (y[-1] - y[n // 2]).abs() < 1e-6
    powers = torch.arange(1, n + 1, dtype=torch.float64)
    torch.testing.assert_close(y.double(), 1 - (1 - beta) ** powers, atol=1e-4, rtol=0)


@pytest.mark.parametrize("form", [delta_rule, delta_rule_recurrent])
def test_beta_2_toggles_exactly(form):
    """T9: beta = 2, unit key, value 1/2: the memory goes 0 1 0 1 ... without any drift."""
    n = 2000
    ones = torch.ones(1, n, 1, 1)
    y, memory = form(ones, ones, ones / 2, torch.full((1, n, 1), 2.0))
    assert y.flatten().tolist() == [1.0, 0.0] * (n // 2)
    assert memory.item() == 0.0


def test_beta_2_is_the_parity_of_any_bits():
    """T9: symbol 0 writes with strength 0, symbol 1 toggles."""
    bits = torch.randint(2, (2000,), generator=torch.Generator().manual_seed(0))
    ones = torch.ones(1, len(bits), 1, 1)
    y, _ = delta_rule(ones, ones, ones / 2, 2.0 * bits.view(1, -1, 1))
    assert torch.equal(y.flatten(), (bits.cumsum(0) % 2).float())


@pytest.mark.parametrize(("beta", "after_100"), [(1.99, 0.37), (1.999, 0.90)])
def test_beta_below_2_decays(beta, after_100):
    """T9: the distance from 1/2 shrinks by beta - 1 a toggle."""
    n = 100
    ones = torch.ones(1, n, 1, 1, dtype=torch.float64)
    strength = torch.full((1, n, 1), beta, dtype=torch.float64)
    y = delta_rule(ones, ones, ones / 2, strength)[0].flatten()
    powers = torch.arange(1, n + 1, dtype=torch.float64)
    torch.testing.assert_close(2 * (y - 0.5).abs(), (beta - 1) ** powers)
    assert 2 * (y[-1] - 0.5).abs() == pytest.approx(after_100, abs=0.01)
