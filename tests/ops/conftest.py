"""Fixtures of the op tests: the golden vectors in the layout of the ops."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

FILE = Path(__file__).parents[1] / "golden" / "fast_weight_rules.safetensors"
TIME_SERIES = {"q", "k", "v", "beta", "qx", "kx", "vx", "bx", "x"}


@dataclass
class Golden:
    """One rule of one set: time series as [B, T, H, D], beta and bx [B, T, H], the rest as is."""

    inputs: dict[str, Tensor]  # fresh leaves that require gradients
    y: Tensor
    grad_out: Tensor
    grads: dict[str, Tensor]  # of (y * grad_out).sum()
    final_state: list[Tensor]

    def check(self, y: Tensor, state: list[Tensor], atol: float = 1e-10) -> None:
        """y, the state and, after a backward pass from y, every gradient."""
        (y * self.grad_out).sum().backward()
        grads = {name: x.grad for name, x in self.inputs.items()}
        got, want = (y, list(state), grads), (self.y, self.final_state, self.grads)
        torch.testing.assert_close(got, want, atol=atol, rtol=1e-12)


@pytest.fixture(params=["f64", "f64_long"])
def golden(request: pytest.FixtureRequest) -> Callable[[str], Golden]:
    """golden(rule) for the rules linear_attn, delta, rec_delta and srwm; both sets."""
    tensors = load_file(FILE)

    def load(rule: str) -> Golden:
        def part(name: str) -> dict[str, Tensor]:
            prefix = f"{request.param}/{rule}/{name}"
            found = {k[len(prefix) :]: x for k, x in tensors.items() if k.startswith(prefix)}
            return {k: _to_ops(x) if k in TIME_SERIES else x for k, x in found.items()}

        return Golden(
            inputs={k: x.clone().requires_grad_() for k, x in part("inputs/").items()},
            y=_to_ops(tensors[f"{request.param}/{rule}/y"]),
            grad_out=_to_ops(tensors[f"{request.param}/{rule}/grad_out"]),
            grads=part("grads/"),
            final_state=[x for _, x in sorted(part("final_state/").items())],
        )

    return load


def _to_ops(x: Tensor) -> Tensor:
    """[B, H, T, D] -> [B, T, H, D], without an axis of length 1."""
    return x.transpose(1, 2).squeeze(-1)
