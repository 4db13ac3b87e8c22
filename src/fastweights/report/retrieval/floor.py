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


@dataclass(frozen=True)
class BelowFloor:
    """A loss more than 5 % below the floor. `is_bound`: every key was asked for."""

    num_keys: int
    model: str
    seed: int | None
    loss: float
    floor: float
    is_bound: bool


def floor(num_features: int, num_keys: int) -> float:
    """1/2 (1 - d_dot / S) for S > d_dot, else 0: what a map of rank d_dot leaves of the squared
    error, over all S keys."""
    return max(0.0, (1 - num_features / num_keys) / 2)


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
    return [
        BelowFloor(
            num_keys,
            run.model,
            run.seed,
            loss,
            lowest,
            num_keys <= MOST_ASKED or not is_published_variant(run),
        )
        for num_keys, run, loss, lowest in checked_runs(study)
        if loss < (1 - TOLERANCE) * lowest
    ]


def published_below_floor() -> list[BelowFloor]:
    """The published runs, which have seed 1."""
    found = []
    for published in published_losses().values():
        if published.setting != 1 or published.model not in MODELS:
            continue
        features = num_features(AssociativeMemoryConfig(**MODELS[published.model]).model_dump())
        lowest = floor(features, published.num_keys) if features else 0.0
        if published.loss < (1 - TOLERANCE) * lowest:
            is_bound = published.num_keys <= MOST_ASKED
            found.append(
                BelowFloor(published.num_keys, published.model, 1, published.loss, lowest, is_bound)
            )
    return found
