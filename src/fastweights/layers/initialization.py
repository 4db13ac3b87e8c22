"""Parameters drawn from a generator, with PyTorch's default distributions."""

import math

import torch
from torch import Tensor, nn


def linear(
    in_features: int, out_features: int, *, bias: bool, generator: torch.Generator | None
) -> nn.Linear:
    """A `torch.nn.Linear` with PyTorch's default initialisation: weight and bias uniform within
    1/sqrt(in_features)."""
    device = torch.get_default_device()  # skip_init takes the CPU, inside torch.device("meta") too
    layer = nn.utils.skip_init(nn.Linear, in_features, out_features, bias=bias, device=device)
    bound = 1 / math.sqrt(in_features)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    return layer


def normal(
    *shape: int, std: float, mean: float = 0.0, generator: torch.Generator | None
) -> nn.Parameter:
    """A parameter of the given shape, drawn from N(mean, std^2)."""
    return nn.Parameter(nn.init.normal_(torch.empty(shape), mean, std, generator=generator))


def split_heads(dim: int, num_heads: int, head_dim: int | None) -> int:
    """The width of one head: `head_dim` if given, else dim / num_heads."""
    if num_heads < 1:
        raise ValueError(f"num_heads must be >= 1, got {num_heads}")
    if head_dim is not None:
        if head_dim < 1:
            raise ValueError(f"head_dim must be >= 1, got {head_dim}")
        return head_dim
    if dim % num_heads:
        raise ValueError(
            f"dim must be divisible by num_heads unless head_dim is given, "
            f"got dim={dim}, num_heads={num_heads}"
        )
    return dim // num_heads


def repeat_for_batch(weight: Tensor, batch_size: int) -> Tensor:
    """`weight [...]` -> `[B, ...]`: the same parameter for every sequence of a batch."""
    return weight.expand(batch_size, *weight.shape)
