"""Times of several contenders in one process, in turns: what slows the machine hits all of them."""

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

BUDGET_S = 12.0
"""A contender that would take longer than this over all rounds gets fewer of them."""
MIN_ROUNDS = 3


@dataclass(frozen=True)
class Contender:
    """Something to be timed.

    Args:
        name: in the tables.
        calls: what to call, by pass.
        seconds: what a call of a pass took when it was checked; sets the number of rounds.
        calls_per_turn: fixed number of calls of a turn, whose mean is the figure; for calls that
            differ from one another. None: as many as fit the time of a turn.
    """

    name: str
    calls: dict[str, Callable[[], object]]
    seconds: dict[str, float] = field(default_factory=dict)
    calls_per_turn: int | None = None

    def takes_part(self, which: str, number: int, rounds: int) -> bool:
        """In round 0, 1, ...; fewer rounds are spread over all of them."""
        if which not in self.calls:
            return False
        each = self.seconds.get(which, 0.0)
        affordable = int(BUDGET_S / each) if each else rounds
        count = min(rounds, max(MIN_ROUNDS, affordable))
        return (number + 1) * count // rounds > number * count // rounds


Times = dict[str, dict[str, list[float | None]]]


def measure(
    contenders: Sequence[Contender],
    passes: Sequence[str],
    rounds: int,
    turn_s: float,
    watch: Callable[[str], None],
    clock: Callable[[], float] = time.perf_counter,
) -> Times:
    """Milliseconds by contender, pass and round; None for a round that it took no part in.

    Every round goes through all contenders, one pass after the other; odd rounds go backwards, so
    that none always follows the same one. A turn calls a contender until `turn_s` have passed; its
    figure is the median call, the first one, which finds cold caches, left out where there are
    others. Python's garbage collector runs between rounds only. `clock` counts seconds:
    `time.process_time` for calls on one thread that others disturb.
    """
    times: Times = {each.name: {which: [] for which in each.calls} for each in contenders}
    collects = gc.isenabled()
    gc.disable()
    try:
        for number in range(rounds):
            gc.collect()
            watch(f"round {number + 1} of {rounds}")
            for which in passes:
                for each in contenders if number % 2 == 0 else contenders[::-1]:
                    if which in each.calls:
                        taken = None
                        if each.takes_part(which, number, rounds):
                            taken = 1e3 * _turn(
                                each.calls[which], each.calls_per_turn, turn_s, clock
                            )
                        times[each.name][which].append(taken)
    finally:
        if collects:
            gc.enable()
    return times


def _turn(
    call: Callable[[], object], number: int | None, turn_s: float, clock: Callable[[], float]
) -> float:
    """Seconds a call."""
    if number is not None:
        start = clock()
        for _ in range(number):
            call()
        return (clock() - start) / number
    taken: list[float] = []
    while not taken or (sum(taken) < turn_s and len(taken) < 100):
        start = clock()
        call()
        taken.append(clock() - start)
    return statistics.median(taken[1:] or taken)
