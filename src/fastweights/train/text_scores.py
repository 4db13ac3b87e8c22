"""What a language model loses on a text, a segment at a time."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fastweights.tasks.text.corpus import lanes
from fastweights.train.problem import Scores, finite_or_none

TOKENS_A_PASS = 2**14


@torch.inference_mode()
def segment_scores(
    model: nn.Module, tokens: Tensor, context_length: int, device: torch.device | str
) -> Scores:
    """Of a text, tokens [N], cut into segments of `context_length` that know nothing of each other;
    what does not fill a last one is left out. Needs more than `context_length` tokens."""
    count = (len(tokens) - 1) // context_length
    starts = torch.arange(count) * context_length
    segments = tokens[starts[:, None] + torch.arange(context_length + 1)]
    nats = 0.0
    with evaluation_mode(model):
        for part in segments.split(max(1, TOKENS_A_PASS // context_length)):
            losses, _ = losses_of(model, part.to(device, torch.int64), None)
            nats += losses.sum().item()
    return scores_of(nats, count * context_length)


@torch.inference_mode()
def carried_scores(
    model: nn.Module,
    tokens: Tensor,
    context_length: int,
    num_lanes: int,
    device: torch.device | str,
) -> Scores:
    """Of a text, tokens [N], cut into lanes, each read from its beginning to its end in segments of
    `context_length`, the state carried from one to the next.

    As many lanes as asked, fewer where one would be shorter than a segment; a lane's last segment
    is shorter than the others. Needs more than `context_length` tokens.
    """
    text = lanes(tokens, min(num_lanes, len(tokens) // (context_length + 1)))
    nats, state = 0.0, None
    with evaluation_mode(model):
        for start in range(0, text.shape[1] - 1, context_length):
            segment = text[:, start : start + context_length + 1].to(device, torch.int64)
            losses, state = losses_of(model, segment, state)
            nats += losses.sum().item()
    return scores_of(nats, text[:, 1:].numel())


def losses_of(model: nn.Module, segment: Tensor, state: Any) -> tuple[Tensor, Any]:
    """Cross-entropy of every next token of `segment [B, T + 1]`, in nats [B, T], and the state
    after it."""
    output = model(segment[:, :-1], state, targets=segment[:, 1:])
    return output.nats, output.state


def scores_of(nats: float, num_tokens: int) -> Scores:
    """nats_per_token, bits_per_byte (None where not finite) and num_tokens, of a sum of nats."""
    mean = nats / num_tokens
    return {
        "nats_per_token": finite_or_none(mean),
        "bits_per_byte": finite_or_none(mean / math.log(2)),
        "num_tokens": num_tokens,
    }


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; its own mode is put back."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
