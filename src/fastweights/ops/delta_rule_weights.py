"""What a query reads from a delta-rule memory, as weights of the values that were stored.

Schlag, Irie, Schmidhuber (2021), Eq. 20-25, read after the last step; see
`fastweights.ops.delta_rule`.
"""

import torch
from torch import Tensor

from fastweights.kernels.backend import Backend, resolve_backend
from fastweights.ops.delta_rule import delta_rule
from fastweights.ops.precision import widest_dtype


def delta_rule_weights(q: Tensor, k: Tensor, beta: Tensor, *, backend: Backend = "auto") -> Tensor:
    """How much of each value is read from the memory after the last step: w [B, H, M, T] with
    q_m S_T = sum_t w_mt v_t, for queries q [B, M, H, K], k [B, T, H, K], beta [B, T, H] and a
    memory that was empty.

    The write of step t acts on a read vector r as on the memory: going back from r_T = q,
    w_t = beta_t (k_t . r_t) and r_{t-1} = r_t - w_t k_t. This is the delta rule on reversed time
    with the values zero and the queries as columns of the memory, which is what backend "torch"
    runs; backend "cpu" is a fused loop. A query costs K numbers a step instead of the K V of the
    memory. Raises ValueError for shapes that do not fit.
    """
    if q.dim() != 4 or k.dim() != 4 or q.shape[::2] != k.shape[::2] or q.shape[3] != k.shape[3]:
        raise ValueError(
            f"delta_rule_weights needs q [B M H K], k [B T H K], beta [B T H], got "
            f"q {list(q.shape)}, k {list(k.shape)}, beta {list(beta.shape)}"
        )
    dtype = widest_dtype(q, k, beta)
    if resolve_backend(backend, "delta_rule_weights", q.device, dtype) == "cpu":
        from fastweights.kernels.cpu import delta_rule_weights as kernel

        return kernel.delta_rule_weights(q.to(dtype), k.to(dtype), beta.to(dtype))
    k, beta = k.flip(1), beta.flip(1)
    queries = q.permute(0, 2, 3, 1)
    first = torch.einsum("bhk,bhkm->bhm", k[:, 0], queries)
    zeros = k.new_zeros(*k.shape[:3], q.shape[1])
    # Read after the write with the key of the next step: what that step finds before its write.
    later, _ = delta_rule(k.roll(-1, 1), k, zeros, beta, queries, backend=backend)
    found = torch.cat([first[:, None], later[:, :-1]], 1)
    return (beta[..., None] * found).flip(1).permute(0, 2, 3, 1)
