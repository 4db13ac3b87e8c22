"""A candidate made ready for a shape: its forward pass, and forward and backward pass together."""

import time
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

    def forward(self) -> Tensor:
        """Outputs, without a graph."""
        with torch.no_grad():
            return self.run(*self.constants)

    def forward_backward(self) -> tuple[Tensor, ...]:
        """Outputs and the gradients of all inputs."""
        y = self.run(*self.leaves)
        return y.detach(), *torch.autograd.grad(y, self.leaves, self.dy)

    def contender(self, passes: tuple[str, ...], first_s: dict[str, float]) -> Contender:
        """What is timed."""
        calls = {FORWARD: self.forward, BOTH: self.forward_backward}
        return Contender(self.candidate.name, {which: calls[which] for which in passes}, first_s)

    def answer(self, passes: tuple[str, ...]) -> tuple[Answer, dict[str, float]]:
        """The results of one call of each pass, and how many seconds each took."""
        taken, gradients = {}, {}
        y: Tensor | None = None
        if FORWARD in passes:
            start = time.perf_counter()
            y = self.forward()
            taken[FORWARD] = time.perf_counter() - start
        if BOTH in passes:
            start = time.perf_counter()
            y, *found = self.forward_backward()
            taken[BOTH] = time.perf_counter() - start
            gradients = dict(zip(self.candidate.arguments, found, strict=True))
        assert y is not None
        common = self.candidate.common
        answer = Answer(common("y", y), {name: common(name, x) for name, x in gradients.items()})
        return answer, taken


def compare(got: Answer, want: Answer) -> Errors:
    """The worst of the gradients that both have."""
    shared = got.gradients.keys() & want.gradients.keys()
    gradients = [_error(got.gradients[name], want.gradients[name]) for name in shared]
    return Errors(_error(got.y, want.y), max(gradients) if gradients else None)


def _error(got: Tensor, want: Tensor) -> float:
    """A number that is not finite, in either, counts as infinitely far."""
    error = ((got - want).abs().max() / want.abs().max()).item()
    return error if error == error else float("inf")
