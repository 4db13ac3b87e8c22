"""The loss of a class among scored ones."""

import torch.nn.functional as F
from torch import Tensor

from fastweights.ops.precision import widest_dtype


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """-log softmax(logits)[target]: logits `[..., C]`, targets `[...]` -> nats `[...]`, computed in
    float32 at least."""
    logits = logits.to(widest_dtype(logits))
    nats = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none")
    return nats.view(targets.shape)
