"""What a language model loses on a text, however the text is cut into calls of the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from fastweights.tasks.text.corpus import lanes
from fastweights.train.evaluation_mode import evaluation_mode
from fastweights.train.problem import Scores, finite_or_none

TOKENS_A_PASS = 2**14

Window = Literal["segments", "carried", "sliding"]
Progress = Callable[[int, int], None]
"""Hears how much is done, and of how much."""


class Reading(NamedTuple):
    """How a text is read.

    segments: pieces of `context_length` tokens that know nothing of each other; what does not fill
    a last one is left out.

    carried: `num_lanes` parts of the text (fewer where one would be shorter than a piece), each
    from its beginning to its end in pieces of `context_length`, the state carried from one to the
    next. With one lane it is one long pass. A lane's last piece is shorter than the others.

    sliding: windows of `context_length` tokens, one every `stride` tokens, that know nothing of
    each other; the last `stride` tokens of a window count, in the first window all. The last window
    ends with the text, and only what no other has counted counts in it. Schlag, Irie, Schmidhuber
    (2021) have a stride of 1.
    """

    window: Window
    context_length: int
    stride: int = 1
    num_lanes: int = 1

    def described(self, num_tokens: Mapping[str, int]) -> dict[str, Any]:
        """What matters to its window, by name; `num_lanes` as they are used, by text, in texts of
        so many tokens. Raises ValueError where it does not fit one of them."""
        for number in num_tokens.values():
            _check(self, number)
        found: dict[str, Any] = {"window": self.window, "context_length": self.context_length}
        if self.window == "carried":
            found["num_lanes"] = {name: _num_lanes(n, self) for name, n in num_tokens.items()}
        if self.window == "sliding":
            found["stride"] = self.stride
        return found


class TextSize(NamedTuple):
    """Of a whole text, separators of documents counted as one byte and one character each."""

    num_tokens: int
    num_bytes: int
    num_characters: int


def text_scores(
    model: nn.Module,
    tokens: Tensor,
    reading: Reading,
    size: TextSize,
    device: torch.device | str,
    progress: Progress | None = None,
) -> Scores:
    """Loss on a text, tokens [N], or on a part of one of this size; `progress` is in tokens.

    nats_per_token and perplexity, its exponential, are of the tokens that count, `num_tokens`.
    bits_per_byte and bits_per_character take the tokens, bytes and characters of the whole text to
    be spread evenly. None where not finite. Raises ValueError for a reading that does not fit.
    """
    nats, num_tokens = 0.0, 0
    for losses in text_losses(model, tokens, reading, device):
        nats += losses.sum(dtype=torch.float64).item()
        num_tokens += losses.numel()
        if progress is not None:
            progress(num_tokens, num_counted(len(tokens), reading))
    mean = nats / num_tokens
    bits = mean / math.log(2)
    return {
        "nats_per_token": finite_or_none(mean),
        "perplexity": finite_or_none(_exponential(mean)),
        "bits_per_byte": finite_or_none(bits * size.num_tokens / size.num_bytes),
        "bits_per_character": finite_or_none(bits * size.num_tokens / size.num_characters),
        "num_tokens": num_tokens,
    }


@torch.inference_mode()
def text_losses(
    model: nn.Module, tokens: Tensor, reading: Reading, device: torch.device | str
) -> Iterator[Tensor]:
    """Cross-entropy in nats of the tokens that count, in one tensor a call of the model.

    Raises ValueError for a reading that does not fit.
    """
    _check(reading, len(tokens))
    read = {"segments": _segments, "carried": _carried, "sliding": _sliding}[reading.window]
    with evaluation_mode(model):
        yield from read(model, tokens, reading, device)


def num_counted(num_tokens: int, reading: Reading) -> int:
    """How many of a text's tokens count. The first is never predicted."""
    match reading.window:
        case "segments":
            return (num_tokens - 1) // reading.context_length * reading.context_length
        case "carried":
            num_lanes = _num_lanes(num_tokens, reading)
            return num_lanes * (num_tokens // num_lanes - 1)
        case "sliding":
            return num_tokens - 1


def losses_of(
    model: nn.Module, segment: Tensor, state: Any, at: Tensor | None = None
) -> tuple[Tensor, Any]:
    """Cross-entropy in nats of every next token of `segment [B, T + 1]`: `[B, T]`, or `[N]` where
    `at [B, T]` is True. And the state after it."""
    output = model(segment[:, :-1], state, at, segment[:, 1:])
    return output.nats, output.state


def _segments(
    model: nn.Module, tokens: Tensor, reading: Reading, device: torch.device | str
) -> Iterator[Tensor]:
    length = reading.context_length
    for part in _batches(tokens.unfold(0, length + 1, length)):
        yield losses_of(model, part.to(device, torch.int64), None)[0]


def _carried(
    model: nn.Module, tokens: Tensor, reading: Reading, device: torch.device | str
) -> Iterator[Tensor]:
    text, state = lanes(tokens, _num_lanes(len(tokens), reading)), None
    for start in range(0, text.shape[1] - 1, reading.context_length):
        piece = text[:, start : start + reading.context_length + 1].to(device, torch.int64)
        losses, state = losses_of(model, piece, state)
        yield losses


def _sliding(
    model: nn.Module, tokens: Tensor, reading: Reading, device: torch.device | str
) -> Iterator[Tensor]:
    length, stride = reading.context_length, reading.stride
    windows = tokens.unfold(0, length + 1, stride)
    left_out = (len(tokens) - 1 - length) % stride
    last = tokens[-length - 1 :][None]
    for part, num_new in (
        (windows[:1], length),
        *((part, stride) for part in _batches(windows[1:])),
        *([(last, left_out)] if left_out else []),
    ):
        at = torch.arange(length, device=device).ge(length - num_new).expand(len(part), length)
        yield losses_of(model, part.to(device, torch.int64), None, at)[0]


def _batches(windows: Tensor) -> Iterator[Tensor]:
    """windows [N, T + 1] in pieces of about TOKENS_A_PASS tokens, at least one window each."""
    size = max(1, TOKENS_A_PASS // (windows.shape[1] - 1))
    return (windows[start : start + size] for start in range(0, len(windows), size))


def _num_lanes(num_tokens: int, reading: Reading) -> int:
    return min(reading.num_lanes, num_tokens // (reading.context_length + 1))


def _check(reading: Reading, num_tokens: int) -> None:
    for name in ("context_length", "stride", "num_lanes"):
        if (value := getattr(reading, name)) < 1:
            raise ValueError(f"{name} must be >= 1, got {value}")
    if reading.context_length >= num_tokens:
        raise ValueError(
            f"context_length {reading.context_length} needs a text of at least "
            f"{reading.context_length + 1} tokens, got one of {num_tokens}"
        )
    if reading.stride > reading.context_length:
        raise ValueError(
            f"stride must be at most context_length = {reading.context_length}, got "
            f"{reading.stride}: tokens between the windows would not count"
        )


def _exponential(nats: float) -> float:
    """Infinite where it is too large for a float."""
    return math.exp(nats) if nats < 700 else math.inf
