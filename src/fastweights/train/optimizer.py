"""Adam as the published runs use it, with optional warm-up and decoupled weight decay."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from fastweights.train.config import TrainingConfig

BETAS = (0.9, 0.995)
EPS = 1e-9


def build_optimizer(
    parameters: Iterable[nn.Parameter], config: TrainingConfig
) -> torch.optim.AdamW:
    """Adam(betas 0.9/0.995, eps 1e-9), Irie et al. (2023), official code; both protocols.

    AdamW with weight decay 0 is Adam. The fused form does one pass over all parameters.
    """
    return torch.optim.AdamW(
        parameters,
        lr=config.lr,
        betas=BETAS,
        eps=EPS,
        weight_decay=config.weight_decay,
        fused=True,
    )


def lr_at(step: int, config: TrainingConfig) -> float:
    """Learning rate of step 0, 1, ...: linear warm-up over `warmup_steps`, then constant."""
    if step >= config.warmup_steps:
        return config.lr
    return config.lr * (step + 1) / config.warmup_steps


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every parameter group this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr
