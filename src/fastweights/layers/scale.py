"""The factor by which the official language models multiply what a memory returns."""

from torch import Tensor, nn


class Scale(nn.Module):
    """`x -> factor x`."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x

    @staticmethod
    def of_heads(head_dim: int, wanted: bool) -> nn.Module:
        """head_dim^-0.5 if wanted, else nothing."""
        return Scale(head_dim**-0.5) if wanted else nn.Identity()
