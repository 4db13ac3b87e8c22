"""Accuracy of a model on labelled strings, and its horizon: accuracy by length."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fastweights.tasks.formal.encode import encode
from fastweights.tasks.formal.language import Example, FormalLanguage
from fastweights.tasks.formal.menu import Task
from fastweights.train.data import generator_for
from fastweights.train.evaluation_mode import evaluation_mode

SEQUENCES_A_BATCH = 256
TOKENS_A_BATCH = 2**16
THRESHOLD = 0.99


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Accuracies from 0 to 1; nats_per_token is None where the model's output is not finite."""

    sequence_accuracy: float
    token_accuracy: float
    nats_per_token: float | None
    num_sequences: int

    def as_dict(self) -> dict[str, Any]:
        """The fields as `result.json` has them."""
        return dataclasses.asdict(self)


@torch.inference_mode()
def evaluate_examples(
    model: nn.Module,
    examples: Sequence[Example],
    symbols: Sequence[str],
    labels: Sequence[str],
    *,
    device: torch.device | str = "cpu",
) -> Accuracy:
    """Sequence accuracy: share of sequences whose every counted position is right.

    Argmax over all outputs, the padding output included, as in the official code. Strings of
    similar length share a batch; the model's training mode is put back afterwards. Raises
    ValueError for an empty list.
    """
    if not examples:
        raise ValueError("evaluate_examples: needs at least one example, got 0")
    sequences = tokens = right_tokens = right_sequences = 0
    nats = 0.0
    with evaluation_mode(model):
        for chunk in _by_length(examples):
            inputs, targets, mask = encode(chunk, symbols, labels)
            inputs, targets, mask = inputs.to(device), targets.to(device), mask.to(device)
            logits = model(inputs).logits
            losses = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
            # A NaN must never count as right, wherever argmax finds it.
            right = (logits.argmax(dim=-1) == targets) & logits.isfinite().all(dim=-1)
            nats += float(losses.masked_fill(~mask, 0.0).double().sum())
            right_tokens += int((right & mask).sum())
            right_sequences += int((right | ~mask).all(dim=1).sum())
            tokens += int(mask.sum())
            sequences += len(chunk)
    mean = nats / tokens
    return Accuracy(
        sequence_accuracy=right_sequences / sequences,
        token_accuracy=right_tokens / tokens,
        nats_per_token=mean if math.isfinite(mean) else None,
        num_sequences=sequences,
    )


def _by_length(examples: Sequence[Example]) -> Iterator[list[Example]]:
    """Batches of similar lengths: at most SEQUENCES_A_BATCH and TOKENS_A_BATCH, at least one."""
    chunk: list[Example] = []
    for example in sorted(examples, key=lambda e: len(e.inputs)):
        full = len(chunk) >= SEQUENCES_A_BATCH
        if chunk and (full or (len(chunk) + 1) * len(example.inputs) > TOKENS_A_BATCH):
            yield chunk
            chunk = []
        chunk.append(example)
    yield chunk


def horizon(
    model: nn.Module,
    task: Task,
    lengths: Sequence[int],
    num_sequences: int,
    seed: int,
    *,
    device: torch.device | str = "cpu",
) -> dict[str, Any] | None:
    """Sequence accuracy at each length, as `result.json` has it; None without a language.

    Up to `num_sequences` distinct strings a length (one, where the language has only one). A length
    that the language does not have is moved up to the next one that it has. `longest_length` is the
    largest tested length up to which every tested length reaches THRESHOLD, 0 if none does.
    """
    language = task.language
    if language is None or not lengths:
        return None
    tested: list[int] = []
    accuracies: list[float] = []
    counts: list[int] = []
    for length in existing_lengths(language, lengths):
        strings = sample_length(language, length, num_sequences, seed)
        examples = [language.example(string) for string in strings]
        accuracy = evaluate_examples(model, examples, task.symbols, task.labels, device=device)
        tested.append(length)
        accuracies.append(accuracy.sequence_accuracy)
        counts.append(accuracy.num_sequences)
    return {
        "lengths": tested,
        "sequence_accuracy": accuracies,
        "num_sequences": counts,
        "threshold": THRESHOLD,
        "longest_length": longest_length(tested, accuracies),
    }


def longest_length(lengths: Sequence[int], accuracies: Sequence[float]) -> int:
    """Largest length up to which every accuracy is at least THRESHOLD; 0 if the first is not."""
    reached = 0
    for length, accuracy in zip(lengths, accuracies, strict=True):
        if accuracy < THRESHOLD:
            break
        reached = length
    return reached


def existing_lengths(language: FormalLanguage, lengths: Sequence[int]) -> list[int]:
    """Each length, or the next longer one that the language has, ascending, without repeats."""
    found = set()
    for length in lengths:
        for reach in (8, 64, 512):
            near = language.lengths(length, length + reach)
            if near:
                found.add(min(near))
                break
    return sorted(found)


def sample_length(
    language: FormalLanguage, length: int, num_sequences: int, seed: int
) -> list[tuple[str, ...]]:
    """The distinct ones of `num_sequences` strings drawn at one length."""
    generator = generator_for(seed, "horizon", length)
    draws = (tuple(language.sample_of_length(length, generator)) for _ in range(num_sequences))
    return list(dict.fromkeys(draws))
