"""Exact top k of the sums of two score vectors, without all the sums (Lample et al., 2019).

    u[i] = u_b[i // A] + u_a[i mod A],   i = 0 .. A B - 1

Csordas, Irie, Schmidhuber (2023), Eq. 8, with A = B = sqrt(d_ff). Pair number i joins sub-key
i mod A of the first half with sub-key i // A of the second.
"""

import torch
from torch import Tensor


def product_key_top_k(score_a: Tensor, score_b: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of the A B sums of score_a `[..., A]` and score_b `[..., B]`, largest first.

    Returns the sums `[..., k]`, whose gradients flow to the scores that they were made of, and the
    numbers of the pairs `[..., k]`, int64. Raises ValueError for shapes that do not fit, and for k
    outside 1 .. A B.
    """
    A, B = score_a.shape[-1], score_b.shape[-1]
    if score_a.shape[:-1] != score_b.shape[:-1]:
        raise ValueError(
            "product_key_top_k: score_a and score_b must be [..., A] and [..., B], "
            f"got {list(score_a.shape)} and {list(score_b.shape)}"
        )
    if not 1 <= k <= A * B:
        raise ValueError(f"product_key_top_k: k must be in 1 .. {A * B} = {A} * {B}, got {k}")
    with torch.no_grad():
        largest_a, index_a = score_a.topk(min(k, A))
        largest_b, index_b = score_b.topk(min(k, B))
        rank_a, rank_b = _candidates(k, A, B, score_a.device)
        best = (largest_a[..., rank_a] + largest_b[..., rank_b]).topk(k).indices
        index_a = index_a.gather(-1, rank_a[best])
        index_b = index_b.gather(-1, rank_b[best])
    return score_a.gather(-1, index_a) + score_b.gather(-1, index_b), A * index_b + index_a


def _candidates(k: int, A: int, B: int, device: torch.device) -> Tensor:
    """The pairs of ranks (0: the largest) that can be among the k largest sums: `[2, M]`.

    A pair of ranks r and s is beaten or equalled by the other (r + 1)(s + 1) - 1 pairs of ranks up
    to r and s, so it is among the first k only where (r + 1)(s + 1) <= k. That leaves about k ln k
    pairs of the k^2.
    """
    pairs = [(r, s) for r in range(min(k, A)) for s in range(min(k // (r + 1), B))]
    return torch.tensor(pairs, device=device).T
