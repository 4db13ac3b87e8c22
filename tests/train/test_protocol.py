"""Selection and stop rules."""

import math
from collections.abc import Callable

import pytest

from fastweights.train.config import RunConfig
from fastweights.train.protocol import Protocol, PublishedBins, Score, Selection


def test_the_higher_accuracy_then_the_lower_nats_then_the_earlier() -> None:
    selection = Selection()
    assert selection.update(1, Score(0.5, 1.0))
    assert not selection.update(2, Score(0.4, 0.1))
    assert selection.update(3, Score(0.5, 0.9))
    assert not selection.update(4, Score(0.5, 0.9))
    assert selection.update(5, Score(0.6, 2.0))
    assert (selection.step, selection.accuracy, selection.loss) == (5, 0.6, 2.0)


def test_without_accuracy_the_loss_alone_counts() -> None:
    selection = Selection()
    assert selection.update(1, Score(None, 0.5))
    assert not selection.update(2, Score(None, 0.6))
    assert selection.evaluations_without_improvement == 1
    assert selection.update(3, Score(None, 0.4))
    assert selection.evaluations_without_improvement == 0


def test_a_first_evaluation_without_finite_nats_is_selected() -> None:
    assert Selection().update(1, Score(0.0, math.inf))


def test_patience_counts_evaluations_in_which_neither_improved(
    make_config: Callable[..., RunConfig],
) -> None:
    protocol = Protocol(make_config(training={"patience": 2}), steps_per_epoch=5)
    selection = Selection()
    reasons = []
    # the third is worse than the best in both, the fourth lowers the nats, the last two do nothing
    for step, (accuracy, nats) in enumerate(
        [(0.5, 1.0), (0.4, 0.5), (0.3, 0.6), (0.2, 0.4), (0.5, 0.4), (0.5, 0.7)]
    ):
        selection.update(step, Score(accuracy, nats))
        reasons.append(protocol.stop(Score(accuracy, nats), selection))
    assert reasons == [None] * 5 + ["2 evaluations without improvement"]


def test_strict_stops_when_right_and_sure(make_config: Callable[..., RunConfig]) -> None:
    protocol = Protocol(make_config(training={"stop_loss": 0.01}), steps_per_epoch=5)
    assert protocol.stop(Score(1.0, 0.02), Selection()) is None
    assert protocol.stop(Score(0.99, 0.001), Selection()) is None
    assert protocol.stop(Score(1.0, 0.001), Selection()) == (
        "validation accuracy 1.0, nats_per_token below 0.01"
    )
    assert protocol.selection == "validation"


def test_published_looks_at_both_bins(make_config: Callable[..., RunConfig]) -> None:
    protocol = PublishedBins(make_config(protocol="published").resolved(), steps_per_epoch=4)
    scores = {
        "bin0": {"sequence_accuracy": 1.0, "nats_per_token": 0.1},
        "bin1": {"sequence_accuracy": 0.5, "nats_per_token": 0.3},
    }
    assert protocol.score(scores) == pytest.approx((0.75, 0.2))
    scores["bin1"]["nats_per_token"] = None  # type: ignore[assignment]
    assert protocol.score(scores) == Score(0.75, math.inf)
    assert protocol.stop(Score(0.999, 0.0), Selection()) is None
    assert protocol.stop(Score(1.0, 5.0), Selection()) == "bin0 and bin1 at 100 %"
    assert protocol.selection == "bin0+bin1"


def test_when_to_evaluate(make_config: Callable[..., RunConfig]) -> None:
    training = {"evaluate_every": 6, "max_steps": 20}
    strict = Protocol(make_config(training=training), 5)
    published = PublishedBins(make_config(training=training, protocol="published"), 5)
    assert [s for s in range(1, 21) if strict.evaluates_at(s)] == [6, 12, 18, 20]
    assert [s for s in range(1, 21) if published.evaluates_at(s)] == [5, 6, 10, 12, 15, 18, 20]


def test_epochs_limit_the_steps(make_config: Callable[..., RunConfig]) -> None:
    protocol = Protocol(make_config(training={"max_epochs": 3}), 5)
    assert (protocol.max_steps, protocol.last_reason) == (15, "max_epochs")
    protocol = Protocol(make_config(training={"max_epochs": 30}), 5)
    assert (protocol.max_steps, protocol.last_reason) == (24, "max_steps")


def test_the_published_run_is_300_epochs_long() -> None:
    """157 steps an epoch: 10,000 strings in batches of 64."""
    protocol = Protocol(RunConfig(protocol="published").resolved(), steps_per_epoch=157)
    assert (protocol.max_steps, protocol.last_reason) == (47_100, "max_epochs")


def test_without_epochs_only_steps_end_a_run(make_config: Callable[..., RunConfig]) -> None:
    protocol = Protocol(make_config(training={"max_epochs": 3, "max_steps": 7}), None)
    assert (protocol.max_steps, protocol.last_reason) == (7, "max_steps")


def test_retrieval_stops_at_a_small_error(make_config: Callable[..., RunConfig]) -> None:
    config = make_config(training={"stop_loss": 0.01})
    protocol = Protocol(config, None, "squared_error", accuracy_name=None, selects_last=True)
    score = protocol.score({"validation": {"squared_error": 0.005, "accuracy": 0.9}})
    assert score == Score(None, 0.005)
    assert protocol.stop(score, Selection()) == "squared_error below 0.01"
    assert protocol.stop(Score(None, 0.02), Selection()) is None
    assert protocol.selection == "last"
