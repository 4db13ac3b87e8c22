"""What every sequence layer and every feed-forward layer promises."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn


class SequenceLayer(nn.Module, ABC):
    """Maps a sequence to a sequence of the same length, causally, with a state that carries on.

    `forward` over T steps equals `forward` over any pieces of them with the state handed on.
    """

    @abstractmethod
    def initial_state(self, batch_size: int) -> Any:
        """An empty state: a `NamedTuple` of tensors on the device of the parameters."""

    @abstractmethod
    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """`x [B, T, D]` -> `y [B, T, D]` and the state after the last step.

        `state=None` means `initial_state(B)`. Gradients flow into a given state.
        """


class AssociativeLayer(SequenceLayer):
    """A sequence layer whose state is a memory of key-value pairs, one a head."""

    @abstractmethod
    def association(self, x: Tensor, state: Any) -> tuple[Tensor, Tensor]:
        """The pair that a step with input `x [B, D]` writes into a state: key `[B, H, K]`, and the
        value `[B, H, V]` that a memory without interference would return for it."""

    @abstractmethod
    def read(self, keys: Tensor, state: Any) -> Tensor:
        """What the memory returns for keys `[B, M, H, K]`: `[B, M, H, V]`."""


class FeedForward(nn.Module, ABC):
    """Maps every position by itself."""

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`x [B, T, D]` -> `y [B, T, D]` and the balance loss, a scalar (0 for a dense layer)."""

    def active_parameters(self) -> int:
        """Number of parameters that the output at one position is made of."""
        return sum(parameter.numel() for parameter in self.parameters())
