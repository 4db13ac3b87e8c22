"""Do our losses agree with the published ones? Point by point, and in the order of the memories."""

import math
from dataclasses import dataclass
from itertools import combinations, permutations

from fastweights.report.retrieval.published import (
    PublishedLoss,
    published_curve,
    published_losses,
    published_models,
)
from fastweights.report.retrieval.study import Point, RetrievalStudy

RELATIVE = 0.15
"""Of the published loss; of the larger one where two memories are compared."""
ABSOLUTE = 0.01


@dataclass(frozen=True)
class Comparison:
    """A point that has ended and is published."""

    point: Point
    ours: float
    published: PublishedLoss

    @property
    def agrees(self) -> bool:
        return agrees(self.ours, self.published.loss)


@dataclass(frozen=True)
class Share:
    """How many published points there are, how many of them we have, and how many agree."""

    num_published: int
    num_compared: int
    num_agreeing: int

    @property
    def share(self) -> float | None:
        """Of the compared points, 0 to 1."""
        return self.num_agreeing / self.num_compared if self.num_compared else None


@dataclass(frozen=True)
class SingleRuns:
    """How often one run agrees with another, by the rule for the points that count.

    `num_runs` of ours, of which `with_published` agree with the published run; `num_pairs` of ours
    at the same point with different seeds, in both directions, of which `with_each_other` agree:
    what a perfect copy of the published experiment could expect.
    """

    num_runs: int
    with_published: int
    num_pairs: int
    with_each_other: int


@dataclass(frozen=True)
class Order:
    """The memories at one size. `reversed_pairs`: of two memories, the published one of lower loss
    first; `tied_once`: pairs that are equal here and not there, or there and not here."""

    setting: int
    num_keys: int
    models: tuple[str, ...]
    reversed_pairs: tuple[tuple[str, str], ...]
    tied_once: int


def agrees(ours: float, published: float) -> bool:
    """Within 15 % of the published loss or within 0.01; NaN agrees with NaN."""
    if math.isnan(ours) or math.isnan(published):
        return math.isnan(ours) and math.isnan(published)
    return abs(ours - published) <= max(ABSOLUTE, RELATIVE * published)


def compare(one: float, other: float) -> int:
    """-1 where `one` is lower, 1 where it is higher, 0 for equals: both below 0.01, within 15 % of
    the larger, or both NaN. NaN is higher than every number."""
    if math.isnan(one) or math.isnan(other):
        return math.isnan(one) - math.isnan(other)
    if max(one, other) < ABSOLUTE or abs(one - other) <= RELATIVE * max(one, other):
        return 0
    return -1 if one < other else 1


def comparisons(study: RetrievalStudy) -> list[Comparison]:
    """Every point that can be compared, in the order of the study."""
    return [
        Comparison(point, loss, published)
        for point in study.points
        if (loss := point.loss) is not None and (published := point.published) is not None
    ]


def shares(study: RetrievalStudy) -> dict[tuple[int, str], Share]:
    """By setting and memory, for every published memory in the settings of the study."""
    found = comparisons(study)
    return {
        (setting, model): _share(
            published_curve(setting, model),
            [c for c in found if (c.published.setting, c.published.model) == (setting, model)],
        )
        for setting in study.settings
        for model in published_models(setting)
    }


def overall(study: RetrievalStudy) -> Share:
    """Without FAVOR+ and the tanh baseline: 200 published points in both settings."""
    return _share(
        [loss for loss in published_losses().values() if loss.counts],
        [comparison for comparison in comparisons(study) if comparison.published.counts],
    )


def single_runs(study: RetrievalStudy) -> SingleRuns | None:
    """Of the points that count in `overall`; None where none has two finished seeds."""
    counted = [found for found in comparisons(study) if found.published.counts]
    runs = [agrees(x, found.published.loss) for found in counted for x in found.point.losses]
    pairs = [agrees(*pair) for found in counted for pair in permutations(found.point.losses, 2)]
    return SingleRuns(len(runs), sum(runs), len(pairs), sum(pairs)) if pairs else None


def orders(study: RetrievalStudy) -> list[Order]:
    """One for each size at which at least two memories can be compared. Published losses that
    diverged have no place in an order."""
    found = [c for c in comparisons(study) if not math.isnan(c.published.loss)]
    result = []
    for setting in study.settings:
        for num_keys in study.sizes(setting):
            here = [c for c in found if (c.point.setting, c.point.num_keys) == (setting, num_keys)]
            if len(here) > 1:
                result.append(_order(setting, num_keys, here))
    return result


def _order(setting: int, num_keys: int, here: list[Comparison]) -> Order:
    reversed_pairs, tied_once = [], 0
    for one, other in combinations(here, 2):
        ours = compare(one.ours, other.ours)
        published = compare(one.published.loss, other.published.loss)
        if ours * published < 0:
            lower, higher = (one, other) if published < 0 else (other, one)
            reversed_pairs.append((lower.point.model, higher.point.model))
        tied_once += (ours == 0) != (published == 0)
    models = tuple(comparison.point.model for comparison in here)
    return Order(setting, num_keys, models, tuple(reversed_pairs), tied_once)


def _share(published: list[PublishedLoss], compared: list[Comparison]) -> Share:
    return Share(len(published), len(compared), sum(c.agrees for c in compared))
