"""The analytic floor of setting 1: a memory of too few features cannot hold all keys."""

from dataclasses import dataclass

from fastweights.experiments.retrieval import MODELS
from fastweights.report.retrieval.memory import num_features
from fastweights.report.retrieval.published import published_losses
from fastweights.report.retrieval.study import RetrievalStudy, final_loss, is_published_variant
from fastweights.report.runs import Run
from fastweights.train.config import AssociativeMemoryConfig

TOLERANCE = 0.05
MOST_ASKED = 200
"""Keys of a sequence that the published evaluation asks for."""
CHUNK = 32
"""Of queries, whose means count the same there, also the last one of fewer."""


@dataclass(frozen=True)
class BelowFloor:
    """A loss more than 5 % below the floor. `is_violation`: and below the bound of its mean."""

    num_keys: int
    model: str
    seed: int | None
    loss: float
    floor: float
    is_violation: bool


def floor(num_features: int, num_keys: int) -> float:
    """1/2 (1 - d_dot / S) for S > d_dot, else 0: what a map of rank d_dot leaves of the squared
    error, over all S keys."""
    return max(0.0, (1 - num_features / num_keys) / 2)


def bound(num_features: int, num_keys: int, published: bool) -> float:
    """What a map of rank d_dot leaves at least in the mean of an evaluation: it can read d_dot keys
    without an error, best those that weigh the most (Eckart and Young, 1936).

    Where all keys weigh the same this is the floor. In the published evaluation the keys of a last,
    shorter chunk weigh more, and those that are not asked for nothing.
    """
    if not published:
        return floor(num_features, num_keys)
    asked = min(num_keys, MOST_ASKED)
    sizes = [min(CHUNK, asked - start) for start in range(0, asked, CHUNK)]
    weights = sorted(1 / (len(sizes) * size) for size in sizes for _ in range(size))
    return sum(weights[: max(0, asked - num_features)]) / 2


def checked_runs(study: RetrievalStudy) -> list[tuple[int, Run, float, float]]:
    """Number of keys, run, loss and floor, where there is a floor above 0."""
    return [
        (point.num_keys, run, loss, lowest)
        for point in study.of_setting(1)
        if point.num_features and (lowest := floor(point.num_features, point.num_keys)) > 0
        for run in point.done
        if (loss := final_loss(run)) is not None
    ]


def below_floor(study: RetrievalStudy) -> list[BelowFloor]:
    """Our runs."""
    found = []
    for point in study.of_setting(1):
        for run in point.done:
            loss = final_loss(run)
            if point.num_features is not None and loss is not None:
                published = is_published_variant(run)
                found += _below(
                    point.num_keys, run.model, run.seed, loss, point.num_features, published
                )
    return found


def published_below_floor() -> list[BelowFloor]:
    """The published runs, which have seed 1."""
    found = []
    for published in published_losses().values():
        if published.setting != 1 or published.model not in MODELS:
            continue
        features = num_features(AssociativeMemoryConfig(**MODELS[published.model]).model_dump())
        if features is not None:
            found += _below(
                published.num_keys, published.model, 1, published.loss, features, published=True
            )
    return found


def _below(
    num_keys: int, model: str, seed: int | None, loss: float, num_features: int, published: bool
) -> list[BelowFloor]:
    """The loss, if it is below the floor."""
    lowest = floor(num_features, num_keys)
    if not loss < (1 - TOLERANCE) * lowest:
        return []
    is_violation = loss < (1 - TOLERANCE) * bound(num_features, num_keys, published)
    return [BelowFloor(num_keys, model, seed, loss, lowest, is_violation)]
