"""A candidate made ready for a shape: its forward pass, and forward and backward pass together."""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.candidates import Candidate
from benchmarks.inputs import Inputs
from benchmarks.timing import Contender

FORWARD, BOTH = "forward", "forward_backward"
PASSES = (FORWARD, BOTH)


class Answer(NamedTuple):
    """The outputs and the gradients by input (none without a backward pass), in the layout of
    all."""

    y: Tensor
    gradients: dict[str, Tensor]


class Errors(NamedTuple):
    """Largest difference over the largest entry; None where there is nothing to compare."""

    output: float | None
    gradient: float | None


class Ready:
    """Inputs made, function loaded (raises PeerMissing)."""

    def __init__(self, candidate: Candidate, inputs: Inputs) -> None:
        self.candidate = candidate
        self.run = candidate.load()
        self.leaves = candidate.leaves(inputs)
        self.constants = [leaf.detach() for leaf in self.leaves]
        values = next(x for name, x in inputs.items() if name in ("v", "x", "z"))
        dy = torch.randn(values.shape, generator=torch.Generator().manual_seed(1))
        dy = dy.transpose(1, 2) if candidate.heads_first else dy
        self.dy = dy.contiguous()
        self._calls: dict[str, Callable[[], object]] = {
            FORWARD: self.forward,
            BOTH: self.forward_backward,
        }

    def forward(self) -> Tensor:
        """Outputs, without a graph."""
        with torch.no_grad():
            return self.run(*self.constants)

    def forward_backward(self) -> tuple[Tensor, ...]:
        """Outputs and the gradients of all inputs."""
        y = self.run(*self.leaves)
        return y.detach(), *torch.autograd.grad(y, self.leaves, self.dy)

    def contender(self, passes: tuple[str, ...], seconds: dict[str, float]) -> Contender:
        """What is timed."""
        calls = {which: self._calls[which] for which in passes}
        return Contender(self.candidate.name, calls, seconds)

    def answer(self, passes: tuple[str, ...]) -> tuple[Answer, dict[str, float]]:
        """The results of one call of each pass, and how many seconds the next call took: the first
        may compile."""
        y, *found = self.forward_backward() if BOTH in passes else (self.forward(),)
        gradients = dict(zip(self.candidate.arguments, found, strict=True)) if found else {}
        common = self.candidate.common
        answer = Answer(common("y", y), {name: common(name, x) for name, x in gradients.items()})
        if FORWARD in passes:
            self.forward()
        return answer, {which: _seconds(self._calls[which]) for which in passes}


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def compare(got: Answer, want: Answer) -> Errors:
    """The worst of the gradients that both have."""
    shared = got.gradients.keys() & want.gradients.keys()
    gradients = [_error(got.gradients[name], want.gradients[name]) for name in shared]
    return Errors(_error(got.y, want.y), max(gradients) if gradients else None)


def _error(got: Tensor, want: Tensor) -> float:
    """A number that is not finite, in either, counts as infinitely far."""
    error = ((got - want).abs().max() / want.abs().max()).item()
    return error if error == error else float("inf")
