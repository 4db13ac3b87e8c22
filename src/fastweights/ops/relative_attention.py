"""Causal attention with relative positions (Transformer-XL; Dai et al., 2019, section 3.3).

    score[t, s] = c_t . k_s + p_t . r_{M + t - s},   s <= M + t
    y_t = sum_s softmax_s(score[t]) v_s

for T queries that are the last T of S = M + T positions: query t stands at position M + t and sees
all M earlier ones. In the paper c = q + u, p = q + v and r_d = W_r R_d, R_d the sinusoids of the
distance d; here the layer adds the biases and scales. Nothing of size [T, S, K] is stored.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from fastweights.ops.sinusoids import sinusoids


def relative_attention(
    content_query: Tensor, position_query: Tensor, k: Tensor, v: Tensor, distance_key: Tensor
) -> Tensor:
    """The parallel form.

    Args:
        content_query, position_query: c and p, `[B, T, H, K]`, scaled.
        k: `[B, S, H, K]`, S >= T, and v `[B, S, H, V]`; the last T are those of the queries.
        distance_key: r `[S, H, K]`, row d for the distance d.

    Returns:
        `[B, T, H, V]`.

    Raises:
        ValueError: if shapes do not fit.
    """
    _check_shapes(content_query, position_query, k, v, distance_key)
    T, S = content_query.shape[1], k.shape[1]
    by_distance = torch.einsum("bthk,dhk->bhtd", position_query, distance_key.flip(0))
    future = torch.ones(T, S, dtype=torch.bool, device=k.device).triu(S - T + 1)
    mask = _shift(by_distance).masked_fill(future, -torch.inf)
    query, key, value = (x.transpose(1, 2) for x in (content_query, k, v))
    return scaled_dot_product_attention(query, key, value, mask, scale=1.0).transpose(1, 2)


def relative_attention_step(
    content_query: Tensor, position_query: Tensor, k: Tensor, v: Tensor, distance_key: Tensor
) -> Tensor:
    """One query, the definition: c, p `[B, H, K]`, k `[B, S, H, K]`, v `[B, S, H, V]`, of which the
    last is the query's own, and distance_key `[S, H, K]` -> `[B, H, V]`."""
    score = torch.einsum("bhk,bshk->bhs", content_query, k)
    score = score + torch.einsum("bhk,shk->bhs", position_query, distance_key.flip(0))
    return torch.einsum("bhs,bshv->bhv", score.softmax(-1), v)


def relative_attention_recurrent(
    content_query: Tensor, position_query: Tensor, k: Tensor, v: Tensor, distance_key: Tensor
) -> Tensor:
    """The loop over queries: the reference. Arguments as in `relative_attention`."""
    _check_shapes(content_query, position_query, k, v, distance_key)
    T, S = content_query.shape[1], k.shape[1]
    ys = []
    for t in range(T):
        seen = S - T + t + 1
        ys.append(
            relative_attention_step(
                content_query[:, t],
                position_query[:, t],
                k[:, :seen],
                v[:, :seen],
                distance_key[:seen],
            )
        )
    return torch.stack(ys, 1)


def distance_sinusoids(length: int, dim: int, like: Tensor) -> Tensor:
    """R_d for d = 0 .. length - 1: `[length, dim]`, on the device and in the dtype of `like`."""
    return sinusoids(torch.arange(length, device=like.device), dim, like)


def _shift(by_distance: Tensor) -> Tensor:
    """From scores of every query at the distances S - 1 .. 0 to scores at the positions 0 .. S - 1.

    Row t of `[..., T, S]` moves T - 1 - t places to the left: rows of S + 1 numbers, the first T of
    all numbers left out, and read as rows of S. What moves in from the right stands at positions
    after the query's and has no meaning.
    """
    T, S = by_distance.shape[-2:]
    rows = pad(by_distance, (1, 0)).flatten(-2)[..., T:]
    return rows.unflatten(-1, (T, S))


def _check_shapes(
    content_query: Tensor, position_query: Tensor, k: Tensor, v: Tensor, distance_key: Tensor
) -> None:
    shapes = [list(x.shape) for x in (content_query, position_query, k, v, distance_key)]
    fit = content_query.dim() == k.dim() == v.dim() == 4
    if fit:
        (B, T, H, K), S = content_query.shape, k.shape[1]
        wanted = [[B, T, H, K], [B, T, H, K], [B, S, H, K], [B, S, H, v.shape[-1]], [S, H, K]]
        fit = 1 <= T <= S and shapes == wanted
    if not fit:
        raise ValueError(
            "relative_attention: wants queries [B, T, H, K], k [B, S, H, K], v [B, S, H, V], "
            f"distance_key [S, H, K], 1 <= T <= S, got {', '.join(map(str, shapes))}"
        )
