"""Adam, with optional warm-up, decay of the learning rate and decoupled weight decay."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from fastweights.train.config import TrainingConfig


def build_optimizer(
    parameters: Iterable[nn.Parameter], config: TrainingConfig
) -> torch.optim.AdamW:
    """AdamW, which with weight decay 0 is Adam. The fused form does one pass over all parameters.

    The configuration's betas and eps are those of the official code: 0.9, 0.995 and 1e-9 for formal
    languages (Irie et al., 2023), PyTorch's own for retrieval (Schlag et al., 2021) and text.
    """
    return torch.optim.AdamW(
        parameters,
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=True,
    )


def lr_at(step: int, config: TrainingConfig) -> float:
    """Learning rate of step 0, 1, ...: linear warm-up over `warmup_steps`, then constant, or half a
    cosine from there to 0 at `max_steps`."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.lr_decay == "none":
        return config.lr
    assert config.max_steps is not None  # the configuration sees to it
    done = (step - config.warmup_steps) / max(1, config.max_steps - config.warmup_steps)
    return config.lr * (1 + math.cos(math.pi * min(1, done))) / 2


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every parameter group this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr
