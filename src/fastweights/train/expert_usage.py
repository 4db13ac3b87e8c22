"""Which experts a mixture of experts chooses: load, entropy, co-occurrence, dead experts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fastweights.layers.moe import Router
from fastweights.ops.precision import autocast_off
from fastweights.ops.routing import Routing


class ExpertUsage:
    """What one router chose, over all tokens that it saw.

    Attributes:
        num_tokens: how many it saw.
        together: [E, E] int64, how many tokens chose both of two experts; on the diagonal, how many
            chose one.
    """

    def __init__(self, num_experts: int) -> None:
        self.num_tokens = 0
        self.together = torch.zeros(num_experts, num_experts, dtype=torch.int64)

    def count(self, expert_index: Tensor) -> None:
        """Add the choices [N, K] of N tokens, up to 2^24 (float32 counts exactly up to there); K
        different experts each."""
        chosen = torch.zeros(len(expert_index), len(self.together), device=expert_index.device)
        chosen.scatter_(1, expert_index, 1.0)
        with autocast_off(chosen):
            self.together += (chosen.mT @ chosen).long().cpu()
        self.num_tokens += len(expert_index)

    @property
    def load(self) -> Tensor:
        """[E] float64: an expert's share of all choices, 1 / E for each if the load is even."""
        chosen = self.together.diagonal().double()
        return chosen / chosen.sum().clamp(min=1)

    @property
    def entropy(self) -> float:
        """Of the load, as a share of log E: 1 if it is even, 0 if one expert has it all."""
        load = self.load
        entropy = -torch.xlogy(load, load).sum().item()
        return entropy / math.log(len(load)) if len(load) > 1 else 1.0

    @property
    def num_dead(self) -> int:
        """Experts that no token chose."""
        return int((self.together.diagonal() == 0).sum())

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers: what the attributes say, and for each pair of experts which share of the
        tokens chose both."""
        return {
            "num_tokens": self.num_tokens,
            "load": [round(x, 6) for x in self.load.tolist()],
            "entropy": self.entropy,
            "num_dead": self.num_dead,
            "together": [
                [round(x / max(1, self.num_tokens), 6) for x in row]
                for row in self.together.tolist()
            ],
        }


@contextmanager
def watched_experts(model: nn.Module) -> Iterator[dict[str, ExpertUsage]]:
    """The usage of every router of a model inside the `with`, by the name of its layer; empty for
    a model without experts."""
    usages, hooks = {}, []
    for name, module in model.named_modules():
        if isinstance(module, Router):
            usages[name.rpartition(".")[0]] = usage = ExpertUsage(len(module.weight))
            hooks.append(module.register_forward_hook(partial(_count, usage)))
    try:
        yield usages
    finally:
        for hook in hooks:
            hook.remove()


def summary(usages: Mapping[str, ExpertUsage]) -> dict[str, float]:
    """Numbers for a log: the mean entropy of the load over the layers, the largest load of an
    expert and the number of dead experts in all; nothing where there are no experts."""
    if not usages:
        return {}
    return {
        "load_entropy": sum(usage.entropy for usage in usages.values()) / len(usages),
        "largest_load": max(usage.load.max().item() for usage in usages.values()),
        "dead_experts": sum(usage.num_dead for usage in usages.values()),
    }


def _count(usage: ExpertUsage, router: nn.Module, inputs: object, routing: Routing) -> None:
    usage.count(routing.expert_index.detach())
