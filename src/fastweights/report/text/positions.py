"""Bits per byte by position in windows of the test text, longer than what the runs learned with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastweights.report.cells import Spread, Study
from fastweights.report.names import model_name
from fastweights.report.runs import ByPosition, Run
from fastweights.report.tables import markdown_table
from fastweights.report.text.tables import bits_text


@dataclass(frozen=True)
class PositionCurves:
    """Of one model on one text, its finished runs that have the same buckets of positions as the
    first; `bits` a run, `error` the mean of their standard errors over the windows."""

    last_position: Sequence[int]
    context_length: int
    bits: Sequence[Sequence[float]]
    error: Sequence[float]

    @property
    def trained(self) -> int:
        """The bucket that ends the training context."""
        return self.last_position.index(self.context_length)

    def positions(self, bucket: int) -> str:
        """`182 to 256`."""
        first = self.last_position[bucket - 1] + 1 if bucket else 1
        last = self.last_position[bucket]
        return f"{first:,}" if first == last else f"{first:,} to {last:,}"


def position_curves(study: Study, text: str) -> dict[str, PositionCurves]:
    """By model, those that have finite numbers."""
    found = {}
    for model in study.models:
        measured = [
            (each, bits_a_nat)
            for run in study.cell(text, model).done
            if (each := _by_position(run)) and (bits_a_nat := _bits_a_nat(run))
        ]
        if not measured:
            continue
        first = measured[0][0]
        alike = [(m, b) for m, b in measured if m.last_position == first.last_position]
        bits = [[b * (x or 0.0) for x in m.nats_per_token] for m, b in alike]
        errors = [[b * (x or 0.0) for x in m.standard_error] for m, b in alike]
        error = [sum(column) / len(alike) for column in zip(*errors, strict=True)]
        found[model] = PositionCurves(first.last_position, first.context_length, bits, error)
    return found


def positions_table(curves: Mapping[str, PositionCurves]) -> str:
    """Rows models: where the training context ends, where the windows end, and the difference."""
    rows = []
    for model, curve in curves.items():
        near, far = ([run[bucket] for run in curve.bits] for bucket in (curve.trained, -1))
        change = [b - a for a, b in zip(near, far, strict=True)]
        rows.append(
            [
                model_name(model).markdown,
                curve.positions(curve.trained),
                bits_text(Spread.of(near)),
                curve.positions(len(curve.last_position) - 1),
                bits_text(Spread.of(far)),
                bits_text(Spread.of(change), sign="+"),
            ]
        )
    header = ["model", "positions", "bits per byte", "further", "bits per byte", "change"]
    return markdown_table(header, rows)


def _by_position(run: Run) -> ByPosition | None:
    """None where numbers are missing or not finite, or no bucket ends the training context."""
    found = run.result.by_position if run.result else None
    if found is None or None in found.nats_per_token or None in found.standard_error:
        return None
    return found if found.context_length in found.last_position else None


def _bits_a_nat(run: Run) -> float | None:
    """Bits per byte of one nat per token of the test text."""
    scores = run.result.splits.get("test") if run.result else None
    if scores is None or not scores.bits_per_byte or not scores.nats_per_token:
        return None
    return scores.bits_per_byte / scores.nats_per_token
