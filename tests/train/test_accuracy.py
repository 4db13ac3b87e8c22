"""Accuracy and horizon, against models whose answers are known."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from fastweights.tasks.formal.language import Example
from fastweights.tasks.formal.menu import LANGUAGES, Task
from fastweights.train.accuracy import (
    evaluate_examples,
    existing_lengths,
    horizon,
    longest_length,
    sample_length,
)

SYMBOLS, LABELS = ("0", "1"), ("0", "1")


class Output(NamedTuple):
    logits: Tensor


class ParityByHand(nn.Module):
    """Right up to `longest`, then label 0 throughout. Outputs: the labels 0, 1 and padding."""

    def __init__(self, longest: int = 10**9, score: float = 20.0) -> None:
        super().__init__()
        self.longest, self.score = longest, score
        self.batches: list[torch.Size] = []

    def forward(self, inputs: Tensor) -> Output:
        self.batches.append(inputs.shape)
        ones = (inputs == 1).cumsum(1)
        answer = (ones % 2 == 0).long()
        answer[:, self.longest :] = 0
        return Output(self.score * nn.functional.one_hot(answer, 3).float())


class Constant(nn.Module):
    """The same scores everywhere."""

    def __init__(self, scores: Sequence[float]) -> None:
        super().__init__()
        self.scores = torch.tensor(scores)

    def forward(self, inputs: Tensor) -> Output:
        return Output(self.scores.expand(*inputs.shape, 3))


def parity(*strings: str) -> list[Example]:
    return [LANGUAGES["parity"].example(tuple(string)) for string in strings]


def test_a_right_model_scores_1() -> None:
    accuracy = evaluate_examples(ParityByHand(), parity("1", "0110", "111"), SYMBOLS, LABELS)
    assert (accuracy.sequence_accuracy, accuracy.token_accuracy) == (1.0, 1.0)
    assert accuracy.nats_per_token == pytest.approx(0.0, abs=1e-6)
    assert accuracy.num_sequences == 3


def test_one_wrong_position_makes_a_sequence_wrong() -> None:
    # parity labels: 0 -> 1; 00 -> 11; 11 -> 01; "always 1" is wrong on the third string alone
    accuracy = evaluate_examples(
        Constant([0.0, 1.0, 0.0]), parity("0", "00", "11"), SYMBOLS, LABELS
    )
    assert accuracy.sequence_accuracy == pytest.approx(2 / 3)
    assert accuracy.token_accuracy == pytest.approx(4 / 5)
    right, wrong = -math.log(math.e / (math.e + 2)), -math.log(1 / (math.e + 2))
    assert accuracy.nats_per_token == pytest.approx((4 * right + wrong) / 5)


def test_the_padding_output_takes_part_in_the_argmax() -> None:
    accuracy = evaluate_examples(Constant([0.0, 1.0, 2.0]), parity("00"), SYMBOLS, LABELS)
    assert accuracy.token_accuracy == 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_wrong(bad: float) -> None:
    accuracy = evaluate_examples(Constant([0.0, bad, 0.0]), parity("0", "00"), SYMBOLS, LABELS)
    assert accuracy.sequence_accuracy == accuracy.token_accuracy == 0.0
    assert accuracy.nats_per_token is None


def test_batches_hold_similar_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastweights.train.accuracy.SEQUENCES_A_BATCH", 3)
    monkeypatch.setattr("fastweights.train.accuracy.TOKENS_A_BATCH", 20)
    model = ParityByHand()
    lengths = [30, 1, 2, 9, 3, 10, 4]
    accuracy = evaluate_examples(model, parity(*("1" * n for n in lengths)), SYMBOLS, LABELS)
    assert [tuple(shape) for shape in model.batches] == [(3, 3), (2, 9), (1, 10), (1, 30)]
    assert accuracy.sequence_accuracy == 1.0


def test_the_training_mode_is_put_back() -> None:
    model = ParityByHand().train()
    evaluate_examples(model, parity("1"), SYMBOLS, LABELS)
    assert model.training


def test_no_examples_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one example, got 0"):
        evaluate_examples(ParityByHand(), [], SYMBOLS, LABELS)


def task_of(name: str) -> Task:
    language = LANGUAGES[name]
    return Task(name, language.symbols, language.labels, {}, language)


def test_the_horizon_finds_where_a_model_ends() -> None:
    measured = horizon(ParityByHand(longest=60), task_of("parity"), [20, 50, 100, 200], 8, seed=1)
    assert measured == {
        "lengths": [20, 50, 100, 200],
        "sequence_accuracy": [1.0, 1.0, 0.0, 0.0],
        "num_sequences": [8, 8, 8, 8],
        "threshold": 0.99,
        "longest_length": 50,
    }


def test_no_language_or_no_lengths_no_horizon() -> None:
    files = Task("files", SYMBOLS, LABELS, {}, None)
    assert horizon(ParityByHand(), files, [10], 4, seed=1) is None
    assert horizon(ParityByHand(), task_of("parity"), [], 4, seed=1) is None


@pytest.mark.parametrize(
    ("name", "want"),
    [("parity", [50, 51, 1000]), ("counter_3", [51, 1002]), ("abab_star", [52, 1000])],
)
def test_lengths_move_up_to_the_next_that_exists(name: str, want: list[int]) -> None:
    assert existing_lengths(LANGUAGES[name], [50, 51, 1000]) == want


def test_one_word_a_length_is_tested_once() -> None:
    assert len(sample_length(LANGUAGES["counter_2"], 10, 64, seed=1)) == 1
    assert len(sample_length(LANGUAGES["parity"], 50, 64, seed=1)) == 64


def test_the_longest_length_ends_at_the_first_failure() -> None:
    assert longest_length([10, 20, 30], [1.0, 0.99, 0.98]) == 20
    assert longest_length([10, 20, 30], [0.98, 1.0, 1.0]) == 0
    assert longest_length([10, 20, 30], [1.0, 0.5, 1.0]) == 10
    assert longest_length([], []) == 0
