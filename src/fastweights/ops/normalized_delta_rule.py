"""The delta rule with attention normalisation: what is found and what is read, per sum of keys.

    v'_t = k_t S_{t-1} / (z_{t-1} . k_t + 1e-5),   S_t = S_{t-1} + beta_t k_t (v_t - v'_t)^T
    z_t = z_{t-1} + k_t,                           y_t = q_t S_t / (q_t . z_t + 1e-5)

Schlag, Irie, Schmidhuber (2021), Eq. 26-28; S [K, V] is the transpose of the paper's W. Read after
the write; the key sum z is not weighted by beta. q and k come mapped from the layer, non-negative,
or a normaliser may vanish; beta after its sigmoid. The paper has no 1e-5, its code has it.

As a plain delta rule: with kappa_t = z_{t-1} . k_t and c_t = kappa_t + 1e-5, keys k / c and
strengths beta c write exactly beta k (v - v')^T. The official code passes strengths beta kappa,
which is another rule: it writes kappa / c of that, and so nothing at all of a key orthogonal to
all keys before it, the first excepted (kappa_1 = 1).

The arithmetic and the state are in float32 at least, autocast or not; y has the dtype of q. The
kernel of the CPU computes in float64 and the results are rounded: 1 / c reaches 1e5, by which the
gradients multiply the rounding errors of the writes that it takes back.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from fastweights.kernels.backend import Backend, resolve_backend
from fastweights.ops.delta_rule import delta_rule
from fastweights.ops.delta_rule_weights import delta_rule_weights
from fastweights.ops.mask import check_mask, where_counted
from fastweights.ops.precision import autocast_off, widest_dtype

NORMALIZER_EPS = 1e-5


class NormalizedDeltaRuleState(NamedTuple):
    """memory [B, H, K, V]; key_sum [B, H, K]: the sum of k."""

    memory: Tensor
    key_sum: Tensor


def normalized_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    state: NormalizedDeltaRuleState | None = None,
    *,
    mask: Tensor | None = None,
    backend: Backend = "auto",
) -> tuple[Tensor, NormalizedDeltaRuleState]:
    """q, k [B, T, H, K], v [B, T, H, V], beta [B, T, H], state (None: zeros).

    A step where mask [B, T] is False leaves the state as it was and reads 0.

    Returns y [B, T, H, V] and the state after the last step. The backends are those of
    `delta_rule`. Raises ValueError for shapes that do not fit and for a missing backend.
    """
    _check_shapes(q, k, v, beta, state, "B T H")
    if mask is not None:
        check_mask(mask, v)
        q, k, v, beta = (where_counted(x, mask) for x in (q, k, v, beta))
    dtype = widest_dtype(q, k, v, beta, *(state or ()))
    exact = _dtype_of_arithmetic(backend, q.device, dtype)
    S, z = _initial_state(k[:, 0], v[:, 0], state, exact)
    query, k, v, beta = (x.to(exact) for x in (q, k, v, beta))
    key_sum = torch.cat([z[:, None], z[:, None] + k.cumsum(1)], 1)  # before step t; after the last
    c = (key_sum[:, :-1] * k).sum(-1) + NORMALIZER_EPS
    y, S = delta_rule(query, k / c[..., None], v, beta * c, S, backend=backend)
    y = y / ((key_sum[:, 1:] * query).sum(-1, keepdim=True) + NORMALIZER_EPS)
    state = NormalizedDeltaRuleState(S.to(dtype), key_sum[:, -1].to(dtype))
    return where_counted(y.to(q.dtype), mask), state


def normalized_delta_rule_step(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: NormalizedDeltaRuleState | None = None
) -> tuple[Tensor, NormalizedDeltaRuleState]:
    """One step, the definition: q, k [B, H, K], v [B, H, V], beta [B, H] -> y [B, H, V], state."""
    _check_shapes(q, k, v, beta, state, "B H")
    dtype = widest_dtype(q, k, v, beta, *(state or ()))
    S, z = _initial_state(k, v, state, dtype)
    query, k, v, beta = (x.to(dtype) for x in (q, k, v, beta))
    with autocast_off(q):
        kappa = (z * k).sum(-1, keepdim=True)
        error = v - torch.einsum("bhk,bhkv->bhv", k, S) / (kappa + NORMALIZER_EPS)
        S = S + k[..., :, None] * (beta[..., None] * error)[..., None, :]
        z = z + k
        normalizer = (query * z).sum(-1, keepdim=True) + NORMALIZER_EPS
        y = torch.einsum("bhk,bhkv->bhv", query, S) / normalizer
    return y.to(q.dtype), NormalizedDeltaRuleState(S, z)


def normalized_delta_rule_recurrent(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: NormalizedDeltaRuleState | None = None
) -> tuple[Tensor, NormalizedDeltaRuleState]:
    """The loop over steps, the reference. Autograd keeps the memory of every step."""
    _check_shapes(q, k, v, beta, state, "B T H")
    outputs = []
    for t in range(q.shape[1]):
        y, state = normalized_delta_rule_step(q[:, t], k[:, t], v[:, t], beta[:, t], state)
        outputs.append(y)
    assert state is not None  # T >= 1
    return torch.stack(outputs, 1), state


def normalized_delta_rule_weights(
    q: Tensor, k: Tensor, beta: Tensor, *, backend: Backend = "auto"
) -> Tensor:
    """How much of each value is read after the last step, from a state that was empty:
    w [B, H, M, T] with y_m = sum_t w_mt v_t, for queries q [B, M, H, K], k [B, T, H, K],
    beta [B, T, H].

    Raises ValueError for shapes that do not fit.
    """
    dtype = widest_dtype(q, k, beta)
    exact = _dtype_of_arithmetic(backend, q.device, dtype)
    q, k, beta = q.to(exact), k.to(exact), beta.to(exact)
    key_sum = k.cumsum(1)
    kappa = (torch.cat([torch.zeros_like(k[:, :1]), key_sum[:, :-1]], 1) * k).sum(-1)
    c = kappa + NORMALIZER_EPS
    weights = delta_rule_weights(q, k / c[..., None], beta * c, backend=backend)
    with autocast_off(q):
        normalizer = torch.einsum("bmhk,bhk->bhm", q, key_sum[:, -1]) + NORMALIZER_EPS
    return (weights / normalizer[..., None]).to(dtype)


def _dtype_of_arithmetic(backend: Backend, device: torch.device, dtype: torch.dtype) -> torch.dtype:
    on_cpu_kernel = resolve_backend(backend, "delta_rule", device, dtype) == "cpu"
    return torch.float64 if on_cpu_kernel else dtype


def _initial_state(
    k: Tensor, v: Tensor, state: NormalizedDeltaRuleState | None, dtype: torch.dtype
) -> NormalizedDeltaRuleState:
    """k [B, H, K], v [B, H, V] -> the given state in `dtype`, or zeros."""
    if state is not None:
        return NormalizedDeltaRuleState(state.memory.to(dtype), state.key_sum.to(dtype))
    memory = torch.zeros(*k.shape, v.shape[-1], dtype=dtype, device=k.device)
    return NormalizedDeltaRuleState(memory, torch.zeros(k.shape, dtype=dtype, device=k.device))


def _check_shapes(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    state: NormalizedDeltaRuleState | None,
    axes: str,
) -> None:
    lead = beta.shape
    fits = len(lead) == len(axes.split()) and q.shape == k.shape and q.dim() == len(lead) + 1
    fits = fits and q.shape[:-1] == lead and v.shape[:-1] == lead and 0 not in lead
    if fits and state is not None:
        key_sum = (lead[0], lead[-1], k.shape[-1])
        fits = state.key_sum.shape == key_sum and state.memory.shape == (*key_sum, v.shape[-1])
    if not fits:
        given = None if state is None else [list(x.shape) for x in state]
        raise ValueError(
            f"normalized delta rule needs q, k [{axes} K], v [{axes} V], beta [{axes}], state "
            f"([B H K V], [B H K]) and T >= 1, got q {list(q.shape)}, k {list(k.shape)}, "
            f"v {list(v.shape)}, beta {list(lead)}, state {given}"
        )
