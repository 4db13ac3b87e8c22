"""The published Adam, and the warm-up."""

import pytest
import torch
from torch import nn

from fastweights.train.config import ConfigError, TrainingConfig, parse_config
from fastweights.train.optimizer import build_optimizer, lr_at, set_lr


def test_it_is_adam_as_published() -> None:
    """Against torch's plain Adam, written out with the published values."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(5, generator=generator, dtype=torch.float64)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizers = [
        build_optimizer([ours], TrainingConfig(lr=0.01)),
        torch.optim.Adam([theirs], lr=0.01, betas=(0.9, 0.995), eps=1e-9),
    ]
    for _ in range(20):
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            (parameter**4).sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours, theirs)
    assert not torch.equal(ours, start)


def test_weight_decay_is_decoupled() -> None:
    parameter = nn.Parameter(torch.ones(1))
    optimizer = build_optimizer([parameter], TrainingConfig(lr=0.1, weight_decay=0.5))
    parameter.grad = torch.zeros(1)
    optimizer.step()
    torch.testing.assert_close(parameter.detach(), torch.tensor([0.95]))


def test_warm_up_is_linear() -> None:
    config = TrainingConfig(lr=1.0, warmup_steps=4)
    assert [lr_at(step, config) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert lr_at(0, TrainingConfig(lr=1.0)) == 1.0


def test_cosine_decay_ends_at_zero() -> None:
    config = TrainingConfig(lr=1.0, warmup_steps=2, lr_decay="cosine", max_steps=6)
    want = [0.5, 1.0, 1.0, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2, 0.0, 0.0]
    assert [lr_at(step, config) for step in range(8)] == pytest.approx(want)


def test_cosine_decay_needs_an_end() -> None:
    training = {"lr_decay": "cosine"}
    assert parse_config({"training": training}).resolved().training.max_steps == 10_000
    with pytest.raises(ConfigError, match="lr_decay: 'cosine' needs max_steps"):
        parse_config({"training": training, "protocol": "published"})


def test_set_lr_reaches_every_group() -> None:
    optimizer = build_optimizer([nn.Parameter(torch.ones(1))], TrainingConfig())
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    set_lr(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.5, 0.5])
