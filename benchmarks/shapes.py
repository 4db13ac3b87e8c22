"""The sizes that are measured, and how much arithmetic a rule takes on them."""

from pydantic import BaseModel, ConfigDict


class Shape(BaseModel):
    """batch sequences of `time` steps; heads of `dim` keys and `dim` values (K = V = D)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch: int
    heads: int | None  # None: a rule without heads
    time: int
    dim: int

    def __str__(self) -> str:
        heads = "" if self.heads is None else f", H {self.heads}"
        return f"B {self.batch}{heads}, T {self.time:,}, D {self.dim}"

    @property
    def slug(self) -> str:
        """The shape in a unit's name."""
        heads = "" if self.heads is None else f"-h{self.heads}"
        return f"b{self.batch}{heads}-t{self.time}-d{self.dim}"

    def shrunk(self) -> "Shape":
        """At most 2 sequences of 2 heads and 64 steps: a multiple of every peer's chunk."""
        heads = self.heads and min(self.heads, 2)
        small = {"batch": min(self.batch, 2), "heads": heads, "time": min(self.time, 64)}
        return self.model_copy(update=small)


def shape(batch: int, heads: int | None, time: int, dim: int) -> Shape:
    """The same, by position."""
    return Shape(batch=batch, heads=heads, time=time, dim=dim)


FLOPS_PER_STEP = {
    "delta_rule": {"forward": 6, "forward_backward": 20},
    "linear_attention": {"forward": 4, "forward_backward": 14},
}
"""Floating-point operations of the loop over steps, per step and head, in units of K V.

Two for each multiply-add. The delta rule reads, writes and reads again: 3 multiply-adds a number of
the memory; its backward pass takes 7 more. Linear attention writes and reads: 2, then 5."""


def flops(question: str, size: Shape, which: str) -> int | None:
    """Of one pass over the shape; None for a rule that is not counted."""
    factor = FLOPS_PER_STEP.get(question, {}).get(which)
    if factor is None:
        return None
    return factor * size.batch * (size.heads or 1) * size.time * size.dim**2
