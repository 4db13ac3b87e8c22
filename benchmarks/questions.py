"""What is measured: the questions, their shapes, and the units of a whole run in order."""

from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.records import Unit
from benchmarks.shapes import Shape, shape
from benchmarks.training import STEPS_PER_TURN


class Question(NamedTuple):
    """Shapes to time and to weigh; `large` ones are weighed only. `one_thread`: not with two."""

    title: str
    shapes: tuple[Shape, ...]
    large: tuple[Shape, ...] = ()
    one_thread: bool = False


_SMALL_HEADS = (shape(64, 16, 50, 4), shape(32, 8, 100, 16))

QUESTIONS = {
    "delta_rule": Question(
        "Delta rule",
        (
            shape(4, 4, 1024, 64),
            shape(4, 4, 4096, 64),
            shape(4, 4, 1024, 32),
            shape(4, 4, 1024, 128),
            shape(32, 8, 128, 16),
            shape(64, 16, 64, 16),
            shape(1, 1, 4096, 64),
            shape(1, 16, 2048, 128),
        ),
    ),
    "linear_attention": Question(
        "Linear attention",
        (
            shape(4, 4, 1024, 64),
            shape(4, 4, 4096, 64),
            shape(4, 4, 1024, 128),
            shape(32, 8, 128, 16),
        ),
    ),
    "self_reference": Question(
        "Self-referential weight matrix (SRWM)", _SMALL_HEADS, (shape(32, 16, 500, 32),)
    ),
    "recurrent_delta": Question("Recurrent Delta rule", _SMALL_HEADS),
    "e_lstm": Question("e-LSTM", (shape(64, None, 50, 64), shape(8, None, 500, 256))),
    "scaling": Question(
        "Growth with the length",
        tuple(shape(1, 2, 2**power, 64) for power in range(8, 17)),
        one_thread=True,
    ),
    "training": Question("Training speed", (), one_thread=True),
}


def plan(questions: Sequence[str], threads: Sequence[int], quick: bool) -> list[Unit]:
    """The units to measure, without rows, in order. Quick: shapes cut to almost nothing."""
    units: list[Unit] = []
    for name in questions:
        question = QUESTIONS[name]
        counts = [1] if question.one_thread else threads
        for size in (*question.shapes, *question.large):
            cut = size.shrunk() if quick else size
            kinds = [None] if size in question.large else [*counts, None]
            units += [_unit(name, cut, count) for count in kinds]
        if name == "training":
            units += [_training(language) for language in STEPS_PER_TURN]
    return list({unit.id: unit for unit in units}.values())


def order(quick: bool) -> list[str]:
    """The names of all units, as the report has them."""
    return [unit.id for unit in plan(list(QUESTIONS), (1, 2), quick)]


def _unit(question: str, size: Shape, threads: int | None) -> Unit:
    """threads None: memory, which is weighed with one thread."""
    times = "1_thread" if threads == 1 else f"{threads}_threads"
    return Unit(
        id=f"{question}/{size.slug}/{times if threads else 'memory'}",
        question=question,
        kind="memory" if threads is None else "time",
        shape=size,
        threads=threads or 1,
    )


def _training(language: str) -> Unit:
    return Unit(
        id=f"training/{language}",
        question="training",
        kind="time",
        shape=None,
        language=language,
        threads=1,
    )
