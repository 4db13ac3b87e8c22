"""Loss by position: whether context beyond the training length still helps."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from fastweights.train.evaluation_mode import evaluation_mode
from fastweights.train.problem import finite_or_none
from fastweights.train.text_scores import TOKENS_A_PASS, Progress, losses_of

TOKENS_AT_MOST = 2**19
"""In the windows of one measurement; two windows in any case."""


@torch.inference_mode()
def loss_by_position(
    model: nn.Module,
    tokens: Tensor,
    context_length: int,
    window_length: int,
    device: torch.device | str,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Mean loss at the positions 1 .. `window_length` of windows spread evenly over a text, tokens
    [N], each read from an empty state in pieces of `context_length`, the state carried on.

    Positions are gathered in buckets, see `last_positions`. `nats_per_token` is the mean over the
    windows, `standard_error` the standard deviation over them by the root of their number (windows
    taken to be independent); None where not finite. `progress` is in windows.

    Raises ValueError where the text has no two windows.
    """
    available = (len(tokens) - 1) // window_length if window_length > 0 else 0
    if available < 2:
        raise ValueError(
            f"loss by position in windows of {window_length} tokens needs two of them: a text of "
            f"at least {2 * window_length + 1} tokens, got one of {len(tokens)}"
        )
    windows = tokens.unfold(0, window_length + 1, window_length)
    count = min(available, max(2, TOKENS_AT_MOST // window_length))
    chosen = torch.arange(count) * available // count
    ends = last_positions(context_length, window_length)
    means = []
    with evaluation_mode(model):
        for part in chosen.split(max(1, TOKENS_A_PASS // context_length)):
            losses = _losses(model, windows[part].to(device, torch.int64), context_length)
            buckets = losses.double().cpu().tensor_split(ends[:-1], dim=1)
            means.append(torch.stack([bucket.mean(1) for bucket in buckets], 1))
            if progress is not None:
                progress(sum(map(len, means)), count)
    by_window = torch.cat(means)
    error = by_window.std(0) / math.sqrt(count)
    return {
        "context_length": context_length,
        "window_length": window_length,
        "num_windows": count,
        "last_position": ends,
        "nats_per_token": [finite_or_none(value) for value in by_window.mean(0).tolist()],
        "standard_error": [finite_or_none(value) for value in error.tolist()],
    }


def last_positions(context_length: int, window_length: int) -> list[int]:
    """The last position of each bucket, the first position being 1: a factor of sqrt(2) apart,
    rounded, `context_length` and `window_length` among them."""
    halves = range(
        -math.ceil(2 * math.log2(context_length)),
        math.ceil(2 * math.log2(max(1, window_length / context_length))) + 1,
    )
    ends = {round(context_length * 2 ** (half / 2)) for half in halves}
    return sorted({end for end in ends if 1 <= end < window_length} | {window_length})


def _losses(model: nn.Module, windows: Tensor, context_length: int) -> Tensor:
    """windows [B, T + 1] -> [B, T]."""
    found, state = [], None
    for start in range(0, windows.shape[1] - 1, context_length):
        losses, state = losses_of(model, windows[:, start : start + context_length + 1], state)
        found.append(losses)
    return torch.cat(found, 1)
