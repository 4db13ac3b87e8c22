"""report.md, from the measurements alone."""

from collections.abc import Iterable

from benchmarks.candidates import CANDIDATES, DESCRIPTIONS
from benchmarks.cells import peak_cell, time_cell, times
from benchmarks.gemm import GEMM_FLOPS
from benchmarks.memory import LIMIT_GIB
from benchmarks.passes import BOTH, FORWARD
from benchmarks.questions import QUESTIONS
from benchmarks.records import FILE, Measurements
from benchmarks.shapes import FLOPS_PER_STEP
from benchmarks.spread import growth, memory_points, ratio, time_points
from benchmarks.tables import (
    DTYPE,
    compared,
    everything_table,
    gemm_line,
    left_out_list,
    ours_table,
    targets_table,
    weighed_table,
)
from benchmarks.timing import BUDGET_S, MIN_ROUNDS
from benchmarks.training import AFTER, BEFORE, MODELS, STEP, contender_name
from fastweights.report.environments import environment_line
from fastweights.report.names import MODEL_NAMES, escape_markdown, language_name
from fastweights.report.tables import markdown_table

RATIOS = "Ratios and shares: forward / forward + backward. Above 1×, ours is faster."
FITTED_FROM = 1024
"""Shortest length of the fitted slopes: below it, the fixed cost of a call shows."""


def page(measured: Measurements, figures: Iterable[str]) -> str:
    """The whole report; `figures` are the file names of those that were drawn."""
    parts = ["# CPU kernels: time, memory, training speed", _preface(measured)]
    parts += ["## Targets", targets_table(measured)]
    if "speedups.png" in figures:
        parts.append("![How many times faster ours is](speedups.png)")
    for name in compared(measured):
        table = ours_table(measured, name)
        parts += [f"## {QUESTIONS[name].title}", table, RATIOS if table else ""]
        parts += [gemm_line(measured, name), weighed_table(measured, name)]
    parts += _scaling(measured, figures) + _training(measured) + _everything(measured)
    return "\n\n".join(part for part in parts if part) + "\n"


def _preface(measured: Measurements) -> str:
    here, settings = measured.environment, measured.settings
    machine = escape_markdown(environment_line({**here, "device": here.get("device_name")}))
    counted = "; ".join(
        f"{QUESTIONS[name].title.lower()} {each[FORWARD]} K V, with backward {each[BOTH]} K V"
        for name, each in FLOPS_PER_STEP.items()
    )
    lines = [
        f"Machine: {machine}; {here.get('memory_gib')} GiB of memory, {here.get('vectors')} "
        f"vectors. Begun {here.get('started_at')}.",
        f"One process, {settings.rounds} rounds. Each goes through all contenders, odd ones "
        f"backwards; a turn lasts {1e3 * settings.turn_s:.0f} ms or one call, and its figure is "
        f"the median call. A contender that would take more than {BUDGET_S:.0f} s in all gets "
        f"fewer rounds, {MIN_ROUNDS} at least.",
        "Freed memory stays with the process (glibc's M_TRIM_THRESHOLD -1, M_MMAP_MAX 0), for all "
        "contenders alike: otherwise calls are timed with the page faults of their outputs or "
        "without, according to who was timed before.",
        "Shown are medians over rounds, quartiles in brackets. A ratio is taken within a round; "
        "then its median and quartiles over rounds.",
        f"All in {DTYPE}, K = V = D. Forward is without a graph; forward + backward gives the "
        "gradients of all inputs. Inputs lie in each contender's own layout before it starts.",
        "Peak memory: what one forward and backward pass adds to the resident memory of a fresh "
        "process with one thread, outputs and gradients counted, inputs not (Linux's VmHWM, good "
        f"to about 1 MiB; {LIMIT_GIB:.0f} GiB at most).",
        f"Arithmetic, in floating-point operations a step and head: {counted}. The GEMM rate is "
        f"that of the faster of {' and '.join(GEMM_FLOPS)} in the same round.",
        f"Made by `make bench-cpu`; every figure is in {FILE}.",
    ]
    if settings.quick:
        lines.insert(0, "**A quick run on tiny shapes: these figures say nothing about speed.**")
    return "\n".join(f"- {line}" for line in lines)


def _scaling(measured: Measurements, figures: Iterable[str]) -> list[str]:
    timed = measured.of("scaling", "time")
    weighed = measured.of("scaling", "memory")
    if not timed:
        return []
    names = [each.name for each in CANDIDATES["scaling"]]
    rows = [
        [
            f"T {unit.shape.time:,}",
            *(
                f"{time_cell(unit, unit.row(name), BOTH)}; {peak_cell(of_memory, name)}"
                for of_memory in [measured.memory_of(unit)]
                for name in names
            ),
        ]
        for unit in timed
        if unit.shape is not None
    ]
    for what, points in (
        ("slope of time", [time_points(timed, name) for name in names]),
        ("slope of memory", [memory_points(weighed, name) for name in names]),
    ):
        slopes = [growth([xy for xy in each if xy[0] >= FITTED_FROM]) for each in points]
        rows.append([what, *("–" if slope is None else f"{slope:.2f}" for slope in slopes)])
    first = timed[0].shape
    assert first is not None
    sizes = f"B {first.batch}, H {first.heads}, D {first.dim}"
    text = (
        f"Forward and backward pass, one thread, {sizes}: `ms; peak MiB`. The slopes are those of "
        f"log time and log memory over log T, from T {FITTED_FROM:,} on: 1 is linear."
    )
    parts = [f"## {QUESTIONS['scaling'].title}", text, markdown_table(["length", *names], rows)]
    if "scaling.png" in figures:
        parts.append("![Time a step and memory over the length](scaling.png)")
    return parts


def _training(measured: Measurements) -> list[str]:
    units = measured.of("training")
    if not units:
        return []
    header = ["model"]
    for unit in units:
        name = language_name(unit.language or "").markdown
        header += [f"{name}: before, ms", "after, ms", "faster"]
    rows = []
    for model in MODELS:
        cells = [MODEL_NAMES[model]]
        before, after = contender_name(model, BEFORE), contender_name(model, AFTER)
        for unit in units:
            cells += [time_cell(unit, unit.row(name), STEP) for name in (before, after)]
            found = ratio(unit, before, after, STEP)
            cells.append("–" if found is None else times(found))
        rows.append(cells)
    errors = [
        row.output_error for unit in units for row in unit.rows if row.output_error is not None
    ]
    text = (
        "Milliseconds an optimisation step (forward, backward, clipping, Adam) of the models and "
        "batches of the formal-language study, one thread. Before: `backend='torch'`, the chunk "
        "forms and the loops of PyTorch operations. After: `backend='auto'`. Both take the same "
        f"batches; their second losses agree to {max(errors, default=0.0):.0e}."
    )
    return [f"## {QUESTIONS['training'].title}", text, markdown_table(header, rows)]


def _everything(measured: Measurements) -> list[str]:
    who = "\n".join(f"- {name}: {text}." for name, text in DESCRIPTIONS.items())
    columns = (
        "`median (quartiles; smallest; rounds)`. The last column: largest difference from ours "
        "over the largest entry, outputs / gradients, found before the times were taken."
    )
    table, reasons = everything_table(measured), left_out_list(measured)
    parts = ["## Every contender", who, columns, table] if table else []
    return parts + (["### Without a figure", reasons] if reasons else [])
