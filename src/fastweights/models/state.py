"""The state that a segment of a text hands to the next one."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map


def leave_segment(state: Any, initial: Any) -> Any:
    """What a segment hands to the next one: the state without gradients.

    Of a part that starts as a parameter (`initial`, the model's own, requires grad) it is the
    change since then, as in the published code of the self-referential weight matrix: the next
    segment adds it to the parameter as that is by then, and the parameter gets gradients from every
    segment.
    """

    def leave(x: Tensor, start: Tensor) -> Tensor:
        return (x - start if start.requires_grad else x).detach()

    return tree_map(leave, state, initial)


def enter_segment(carried: Any, initial: Any) -> Any:
    """The state in which a segment begins, of what `leave_segment` returned."""

    def enter(x: Tensor, start: Tensor) -> Tensor:
        return start + x if start.requires_grad else x

    return tree_map(enter, carried, initial)
