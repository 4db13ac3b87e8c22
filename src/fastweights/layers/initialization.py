"""Parameters drawn from a generator: PyTorch's default distributions, and that of Csordas et al."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from fastweights.layers.arguments import check_sizes


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


LinearInitialization = Literal["uniform", "scaled"]


def two_layers(
    dim: int,
    ff_dim: int,
    initialization: LinearInitialization,
    num_layers: int,
    generator: torch.Generator | None,
) -> tuple[nn.Linear, nn.Linear]:
    """The maps dim -> ff_dim -> dim of a feed-forward network, as `linear` draws them ("uniform")
    or as the official code of Csordas, Irie, Schmidhuber (2023) does ("scaled"): weights from a
    normal distribution cut off at two deviations and scaled to the standard deviation
    sqrt(2 / (in_features num_layers)), biases 0."""
    if initialization not in get_args(LinearInitialization):
        names = " or ".join(get_args(LinearInitialization))
        raise ValueError(f"initialization must be {names}, got {initialization!r}")
    check_sizes(dim=dim, ff_dim=ff_dim, num_layers=num_layers)
    layers = (
        linear(dim, ff_dim, bias=True, generator=generator),
        linear(ff_dim, dim, bias=True, generator=generator),
    )
    if initialization == "scaled":
        for layer in layers:
            std = math.sqrt(2 / (layer.in_features * num_layers))
            with torch.no_grad():
                nn.init.trunc_normal_(
                    layer.weight, std=std, a=-2 * std, b=2 * std, generator=generator
                )
                layer.weight.mul_(std / layer.weight.std())
                layer.bias.zero_()
    return layers


def normal(
    *shape: int, std: float, mean: float = 0.0, generator: torch.Generator | None
) -> nn.Parameter:
    """A parameter of the given shape, drawn from N(mean, std^2)."""
    return nn.Parameter(nn.init.normal_(torch.empty(shape), mean, std, generator=generator))


def draw_normal(model: nn.Module, generator: torch.Generator | None) -> None:
    """Draw linear layers and embeddings again from N(0, 0.02^2) and the weights of norms from
    N(1, 0.02^2), with biases 0, as the official language models of Schlag, Irie, Schmidhuber (2021)
    do. What else there is stays as it is."""
    for module in model.modules():
        if isinstance(module, nn.Embedding) and module.weight.requires_grad:
            nn.init.normal_(module.weight, std=0.02, generator=generator)
        if isinstance(module, nn.Linear | nn.LayerNorm):
            mean = 1.0 if isinstance(module, nn.LayerNorm) else 0.0
            nn.init.normal_(module.weight, mean, 0.02, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def split_heads(dim: int, num_heads: int, head_dim: int | None) -> int:
    """The width of one head: `head_dim` if given, else dim / num_heads."""
    check_sizes(num_heads=num_heads)
    if head_dim is not None:
        check_sizes(head_dim=head_dim)
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
