"""Memory for time: what a block computed is computed again in the backward pass."""

from __future__ import annotations

import functools

from torch import nn
from torch.utils.checkpoint import checkpoint


def checkpoint_blocks(model: nn.Module) -> None:
    """From now on the blocks of a sequence model keep only their inputs for the backward pass.

    Loss and gradients are the same, with dropout's draws; the names of the weights stay.
    """
    blocks = model.get_submodule("blocks")
    for block in blocks.children():
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
