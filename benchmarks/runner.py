"""Measures one unit."""

import math
import statistics
import time
from collections.abc import Callable, Sequence

from benchmarks.candidates import CANDIDATES, Candidate
from benchmarks.gemm import gemm_contenders
from benchmarks.inputs import make_inputs
from benchmarks.memory import MemoryMeter, NotMeasured
from benchmarks.passes import BOTH, FORWARD, PASSES, Answer, Errors, Ready, compare
from benchmarks.peers import PeerMissing
from benchmarks.records import Measurements, Row, Settings, Unit
from benchmarks.shapes import FLOPS_PER_STEP, Shape
from benchmarks.timing import Contender, Times, measure
from benchmarks.training import STEP, training_contenders
from fastweights.train.process import cpu_threads

Watch = Callable[[str], None]

TOO_SLOW_S = 10.0
"""A contender of the scaling question stops at the length where a call would take longer."""
MEMORY = "memory"


def run_unit(unit: Unit, measured: Measurements, meter: MemoryMeter, watch: Watch) -> Unit:
    """The unit with its rows. `measured`: what there is already."""
    start = time.perf_counter()
    with cpu_threads(unit.threads):
        if unit.kind == "memory":
            rows = _weigh(unit, measured, meter, watch)
        elif unit.language is not None:
            rows = _train(unit.language, measured.settings, watch)
        else:
            rows = _time(unit, measured, watch)
    wall_s = round(time.perf_counter() - start, 2)
    return unit.model_copy(update={"rows": tuple(rows), "wall_s": wall_s})


def _time(unit: Unit, measured: Measurements, watch: Watch) -> list[Row]:
    """Check every candidate against its reference, then time those that gave a result."""
    assert unit.shape is not None
    passes = (BOTH,) if unit.question == "scaling" else PASSES
    settings = measured.settings
    inputs = make_inputs(unit.question, unit.shape)
    rows: dict[str, Row] = {}
    references: dict[str, Answer] = {}
    contenders: list[Contender] = []
    for each in CANDIDATES[unit.question]:
        watch(f"checking {each.name}")
        left_out = _left_out(each, unit, passes, measured)
        mine = tuple(which for which in passes if which not in left_out)
        errors = Errors(None, None)
        try:
            if mine:
                ready = Ready(each, inputs)
                answer, seconds = ready.answer(mine)
                if each.reference is None:
                    references[each.name] = answer
                elif each.reference in references:
                    errors = compare(answer, references[each.reference])
                contenders.append(ready.contender(mine, seconds))
        except Exception as error:  # a peer that fails is a row of the table, not the end
            left_out.update(dict.fromkeys(mine, _reason(error)))
        if math.inf in errors:
            left_out.update(dict.fromkeys(mine, "its results are not finite"))
            contenders.pop()
            errors = Errors(None, None)
        rows[each.name] = Row(
            name=each.name,
            output_error=errors.output,
            gradient_error=errors.gradient,
            left_out=left_out,
        )
    references.clear()
    if unit.question in FLOPS_PER_STEP:
        contenders += gemm_contenders(passes)
    return _filled(rows, measure(contenders, passes, settings.rounds, settings.turn_s, watch))


def _train(language: str, settings: Settings, watch: Watch) -> list[Row]:
    watch("two steps of every model")
    contenders, errors = training_contenders(language)
    rows = {
        each.name: Row(name=each.name, output_error=errors.get(each.name)) for each in contenders
    }
    return _filled(rows, measure(contenders, (STEP,), settings.rounds, settings.turn_s, watch))


def _weigh(unit: Unit, measured: Measurements, meter: MemoryMeter, watch: Watch) -> list[Row]:
    assert unit.shape is not None
    rows = []
    for each in CANDIDATES[unit.question]:
        watch(each.name)
        peak, reason = None, _left_out(each, unit, (BOTH,), measured).get(BOTH)
        try:
            if reason is None:
                each.load()  # a missing peer is told here, not by a process that dies
                peak = round(meter.peak_mib(unit.question, each.name, unit.shape), 2)
        except NotMeasured as error:
            reason = str(error)
        except PeerMissing as error:
            reason = _reason(error)
        left_out = {} if reason is None else {MEMORY: reason}
        rows.append(Row(name=each.name, peak_mib=peak, left_out=left_out))
    return rows


def _left_out(
    candidate: Candidate, unit: Unit, passes: Sequence[str], measured: Measurements
) -> dict[str, str]:
    """Passes not to be timed, each with the reason."""
    assert unit.shape is not None
    reasons = {FORWARD: None, BOTH: candidate.too_large(unit.shape)}
    if unit.question == "scaling":
        reasons[BOTH] = _too_slow(candidate.name, unit.shape, measured)
    return {which: reason for which in passes if (reason := reasons[which]) is not None}


def _too_slow(name: str, size: Shape, measured: Measurements) -> str | None:
    """From the times at half and a quarter of the length, going on as they went; what was left out
    at half the length is left out here."""
    rows = [_scaling_row(name, size.time // divisor, measured) for divisor in (4, 2)]
    if rows[1] is None:
        return None
    if BOTH in rows[1].left_out:
        return rows[1].left_out[BOTH]
    quarter, half = (_median_s(row) for row in rows)
    if half is None:
        return None
    expected = half * (2.0 if quarter is None else max(1.0, half / quarter))
    return f"would take about {expected:.0f} s" if expected > TOO_SLOW_S else None


def _scaling_row(name: str, length: int, measured: Measurements) -> Row | None:
    for unit in measured.of("scaling", "time"):
        if unit.shape is not None and unit.shape.time == length:
            return unit.row(name)
    return None


def _median_s(row: Row | None) -> float | None:
    taken = [] if row is None else [ms for ms in row.ms.get(BOTH, ()) if ms is not None]
    return statistics.median(taken) / 1e3 if taken else None


def _filled(rows: dict[str, Row], times: Times) -> list[Row]:
    """The rows with their times, rounded to 0.1 microseconds; further contenders below."""
    for name, ms in times.items():
        rounded = {
            which: tuple(None if x is None else round(x, 4) for x in each)
            for which, each in ms.items()
        }
        rows[name] = rows.get(name, Row(name=name)).model_copy(update={"ms": rounded})
    return list(rows.values())


def _reason(error: Exception) -> str:
    line = " ".join(str(error).split()) or type(error).__name__
    return f"missing: {line}" if isinstance(error, PeerMissing) else f"failed: {line}"
