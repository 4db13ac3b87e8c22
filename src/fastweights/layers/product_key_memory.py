"""Feed-forward networks of n^2 values whose keys are pairs of 2 n sub-keys.

Pair number i joins sub-key i mod n of the first half with sub-key i // n of the second, and scores
the sum of their scores (Csordas, Irie, Schmidhuber, 2023, Eq. 8): see `ops/product_keys.py`.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from fastweights.layers.arguments import check_choice, check_sizes
from fastweights.layers.initialization import normal
from fastweights.layers.layer import FeedForward
from fastweights.ops.precision import widest_dtype
from fastweights.ops.product_keys import product_key_top_k
from fastweights.ops.sparse_read import sparse_read

Activation = Literal["relu", "softmax"]
Initialization = Literal["dim", "num_values"]


class ProductKeyMemory(FeedForward):
    """Product-key memory (Lample et al., 2019): every head looks up the K best of n^2 keys.

        q_h = W_h x,   y = sum_h sum_{i in top K of u_h} f(u_h)[i] v_i

    with u_h the scores of the pairs for the two halves of q_h, f a softmax over the K of a head, or
    the ReLU; the values are shared by the heads. As Lample et al., but without their normalisation
    of the queries over a batch. W_h is drawn from N(0, 1/dim) and the sub-keys from
    N(0, 2/(key_dim L)): with inputs of variance 1 a score starts with variance 2/L, as the hidden
    units of the paper's dense layer.

    Args:
        dim: D.
        num_subkeys: n, a half; there are n^2 values.
        num_heads: H.
        top_k: K, keys a head.
        key_dim: width of a query, even; by default the largest even number up to dim / num_heads.
        activation: `relu` or `softmax`.
        initialization: the values are drawn from N(0, 2/(dim L)) or, the unified view's correction,
            from N(0, 2/(num_values L)).
        num_layers: L, feed-forward layers in the model.
        generator: of the initial weights; PyTorch's default one if None.
    """

    def __init__(
        self,
        dim: int,
        num_subkeys: int,
        num_heads: int = 4,
        top_k: int = 32,
        key_dim: int | None = None,
        activation: Activation = "relu",
        initialization: Initialization = "dim",
        num_layers: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_sizes(dim=dim)
        _check(num_subkeys, num_heads, activation, initialization, num_layers)
        if not 1 <= top_k <= num_subkeys**2:
            raise ValueError(f"top_k must be in 1 .. num_subkeys^2 = {num_subkeys**2}, got {top_k}")
        key_dim = dim // num_heads // 2 * 2 if key_dim is None else key_dim
        if not key_dim >= 2 or key_dim % 2:
            raise ValueError(f"key_dim must be even and >= 2, got {key_dim}")
        self.top_k = top_k
        self.activation = activation
        self.query = normal(num_heads, 2, key_dim // 2, dim, std=dim**-0.5, generator=generator)
        self.subkeys = _draw_subkeys(key_dim, num_subkeys, num_heads, num_layers, generator)
        self.values = _draw_values(dim, num_subkeys, initialization, num_layers, generator)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        query = torch.nn.functional.linear(x, self.query.flatten(0, 2))
        query = query.unflatten(-1, self.query.shape[:3])
        score_a, score_b = torch.einsum("...hjk,hjnk->...hjn", query, self.subkeys).unbind(-2)
        score, index = product_key_top_k(score_a, score_b, self.top_k)
        weight = _activate(score, self.activation)
        return sparse_read(self.values, index.flatten(-2), weight.flatten(-2)), x.new_zeros(())

    def active_parameters(self) -> int:
        """Every sub-key, and as many values as the heads look up where they choose different
        ones."""
        num_values, dim = self.values.shape
        unused = max(0, num_values - len(self.subkeys) * self.top_k)
        return super().active_parameters() - unused * dim


class DenseProductKeyMemory(FeedForward):
    """What the published runs called PKM: every value counts, and the heads are one.

        u[i] = sum_h (k_h,a[i mod n] . x_a + k_h,b[i // n] . x_b),   y = sum_i f(u)[i] v_i

    with x_a and x_b the halves of x. Csordas, Irie, Schmidhuber (2023) describe a top K, but ran
    with K above the number of sub-keys, where their code takes none: it adds the scores of the
    heads before the nonlinearity, without a projection of the queries. So the H heads compute what
    one with the sum of their sub-keys computes, and differ from it in how they start and train.

    With the ReLU it is `Dense` without biases, with n^2 hidden units whose first layer is a sum of
    two, and costs as much; the softmax is over all n^2. For a lookup, see `ProductKeyMemory`.

    Args:
        dim: D, even.
        num_subkeys: n, a half; there are n^2 values.
        num_heads: H; sub-keys of all heads are drawn from N(0, 2/(dim L)).
        activation, initialization, num_layers, generator: as in `ProductKeyMemory`.
    """

    def __init__(
        self,
        dim: int,
        num_subkeys: int,
        num_heads: int = 4,
        activation: Activation = "relu",
        initialization: Initialization = "dim",
        num_layers: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        _check(num_subkeys, num_heads, activation, initialization, num_layers)
        if not dim >= 2 or dim % 2:
            raise ValueError(f"dim must be even and >= 2, got {dim}")
        self.activation = activation
        self.subkeys = _draw_subkeys(dim, num_subkeys, num_heads, num_layers, generator)
        self.values = _draw_values(dim, num_subkeys, initialization, num_layers, generator)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        halves = x.unflatten(-1, (2, -1))
        score_a, score_b = torch.einsum("...jk,jnk->...jn", halves, self.subkeys.sum(0)).unbind(-2)
        score = (score_b[..., :, None] + score_a[..., None, :]).flatten(-2)
        return _activate(score, self.activation) @ self.values, x.new_zeros(())


def _check(
    num_subkeys: int, num_heads: int, activation: str, initialization: str, num_layers: int
) -> None:
    check_sizes(num_subkeys=num_subkeys, num_heads=num_heads, num_layers=num_layers)
    check_choice("activation", activation, Activation)
    check_choice("initialization", initialization, Initialization)


def _draw_subkeys(
    key_dim: int,
    num_subkeys: int,
    num_heads: int,
    num_layers: int,
    generator: torch.Generator | None,
) -> torch.nn.Parameter:
    """`[H, 2, n, key_dim / 2]`, from N(0, 2/(key_dim L))."""
    std = math.sqrt(2 / (key_dim * num_layers))
    return normal(num_heads, 2, num_subkeys, key_dim // 2, std=std, generator=generator)


def _draw_values(
    dim: int,
    num_subkeys: int,
    initialization: Initialization,
    num_layers: int,
    generator: torch.Generator | None,
) -> torch.nn.Parameter:
    """`[n^2, D]`, from N(0, 2/(D L)) or N(0, 2/(n^2 L))."""
    num_values = num_subkeys**2
    fan_in = dim if initialization == "dim" else num_values
    std = math.sqrt(2 / (fan_in * num_layers))
    return normal(num_values, dim, std=std, generator=generator)


def _activate(score: Tensor, activation: Activation) -> Tensor:
    """`[..., n]` -> `[..., n]`; the softmax in float32 at least."""
    if activation == "relu":
        return score.relu()
    return score.softmax(-1, dtype=widest_dtype(score)).to(score.dtype)
