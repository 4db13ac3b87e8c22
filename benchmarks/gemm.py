"""The machine's matrix-multiplication rate, the yardstick for a share of its arithmetic."""

import functools

import torch

from benchmarks.timing import Contender

GEMM_FLOPS = {"torch.mm 1024³": 2 * 1024**3, "torch.bmm 64 × 64³": 64 * 2 * 64**3}
"""Floating-point operations of one call."""


def gemm_contenders(passes: tuple[str, ...]) -> list[Contender]:
    """One large float32 product and 64 small ones, timed beside each pass."""
    generator = torch.Generator().manual_seed(0)
    large = torch.randn(2, 1024, 1024, generator=generator)
    small = torch.randn(2, 64, 64, 64, generator=generator)
    calls = (
        functools.partial(torch.mm, *large, out=torch.empty(1024, 1024)),
        functools.partial(torch.bmm, *small, out=torch.empty(64, 64, 64)),
    )
    return [
        Contender(name, dict.fromkeys(passes, call))
        for name, call in zip(GEMM_FLOPS, calls, strict=True)
    ]
