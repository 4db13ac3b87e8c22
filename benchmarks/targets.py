"""What the kernels must reach: required and measured."""

from typing import NamedTuple

from benchmarks.candidates import FLA_CHUNK, OURS, SDPA, STEPS
from benchmarks.passes import BOTH, FORWARD
from benchmarks.questions import QUESTIONS
from benchmarks.records import Measurements
from benchmarks.shapes import Shape, shape
from benchmarks.spread import Spread, gemm_share, ratio

GEMM, MEMORY = "GEMM rate", "memory"

# Measured beside SDPA on another machine, B 4, H 4, T 1024, D 64, one thread, in ms.
_IDIAP = {FORWARD: (8.6, 40.0), BOTH: (29.3, 144.0)}
IDIAP = {which: sdpa / idiap for which, (idiap, sdpa) in _IDIAP.items()}


class Target(NamedTuple):
    """At least `forward` and `both` times faster than `against` (or that share of the GEMM rate),
    with one thread; for memory, at most `both` MiB."""

    question: str
    size: Shape
    against: str
    forward: float | None
    both: float
    note: str = ""


_MAIN = shape(4, 4, 1024, 64)
_LITTLE, _MIDDLE = shape(64, 16, 50, 4), shape(32, 8, 100, 16)

TARGETS = (
    Target("delta_rule", _MAIN, SDPA, 6, 4.5),
    Target("delta_rule", shape(4, 4, 4096, 64), SDPA, 18, 12),
    Target("delta_rule", _MAIN, FLA_CHUNK, 4, 5),
    Target("delta_rule", _MAIN, GEMM, 0.70, 0.55),
    Target(
        "linear_attention",
        _MAIN,
        SDPA,
        IDIAP[FORWARD],
        IDIAP[BOTH],
        "idiap's C++ kernel was this much faster than SDPA",
    ),
    Target("self_reference", _LITTLE, STEPS, 10, 12),
    Target("self_reference", _MIDDLE, STEPS, 5, 8),
    Target("recurrent_delta", _LITTLE, STEPS, 5, 8),
    Target("recurrent_delta", _MIDDLE, STEPS, 5, 8),
    Target("self_reference", shape(32, 16, 500, 32), MEMORY, None, 1024),
)


class Verdict(NamedTuple):
    """One figure of a target; `measured` None where it has not been measured."""

    target: Target
    which: str
    required: float
    measured: Spread | None

    @property
    def met(self) -> bool | None:
        """By the median; None where nothing was measured."""
        if self.measured is None:
            return None
        if self.target.against == MEMORY:
            return self.measured.median <= self.required
        return self.measured.median >= self.required

    @property
    def what(self) -> str:
        """`Delta rule, B 4, H 4, T 1,024, D 64`."""
        return f"{QUESTIONS[self.target.question].title}, {self.target.size}"


def verdicts(measured: Measurements) -> list[Verdict]:
    """In the order of the targets, forward before forward and backward."""
    found = []
    for target in TARGETS:
        prefix = f"{target.question}/{target.size.slug}"
        timed, weighed = measured.unit(f"{prefix}/1_thread"), measured.unit(f"{prefix}/memory")
        for which, required in ((FORWARD, target.forward), (BOTH, target.both)):
            if required is None:
                continue
            if target.against == MEMORY:
                row = weighed.row(OURS) if weighed is not None else None
                peak = row.peak_mib if row is not None else None
                figure = None if peak is None else Spread(peak, peak, peak, peak, 1)
            elif target.against == GEMM:
                figure = gemm_share(timed, OURS, which)
            else:
                figure = ratio(timed, target.against, OURS, which)
            found.append(Verdict(target, which, required, figure))
    return found
