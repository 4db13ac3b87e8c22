"""Text from a language model, token by token: the prompt in one call, then steps of T = 1."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import count

import torch
from torch import Tensor

from fastweights.models.sequence_model import SequenceModel
from fastweights.tasks.text.tokenizer import Tokenizer

REPLACEMENT = "\ufffd"
"""What `Tokenizer.decode` shows in place of an incomplete character."""


def generate(
    model: SequenceModel,
    prompt: Tensor,
    max_tokens: int | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """The tokens that follow a prompt, `[B]` int64 at a time, on its device.

    The model's state is all that is kept between steps: of constant size, except that of softmax
    attention. The same generator gives the same draws on every device.

    Args:
        model: in evaluation mode.
        prompt: `[B, T]` token numbers, T >= 1.
        max_tokens: of every row; None: without end.
        temperature: the scores are divided by it; 0: always the best token.
        top_k, top_p: see `keep_top_k` and `keep_top_p`, in this order; None: all tokens.
        generator: of the draws; PyTorch's default one if None.

    Raises:
        ValueError: if a value does not fit.
    """
    _check(model, prompt, max_tokens, temperature, top_k, top_p)
    return _steps(model, prompt, max_tokens, temperature, top_k, top_p, generator)


def keep_top_k(scores: Tensor, top_k: int) -> Tensor:
    """Scores `[..., V]` with -inf for those below the k-th largest; equal ones all stay."""
    kth = scores.topk(min(top_k, scores.shape[-1])).values[..., -1:]
    return scores.masked_fill(scores < kth, -math.inf)


def keep_top_p(scores: Tensor, top_p: float) -> Tensor:
    """Scores `[..., V]` with -inf for all but the nucleus (Holtzman et al., 2020): the fewest most
    probable tokens whose probabilities add up to `top_p` or more."""
    ascending, index = scores.sort(-1)
    left_out = ascending.softmax(-1).cumsum(-1) <= 1 - top_p
    left_out[..., -1] = False
    return scores.masked_fill(left_out.scatter(-1, index, left_out), -math.inf)


def draw(
    scores: Tensor,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    generator: torch.Generator | None,
) -> Tensor:
    """One token a row: scores `[B, V]` -> `[B]`. Arguments as in `generate`.

    Raises ValueError where the best score of a row is not finite.
    """
    best = scores.amax(-1, keepdim=True)
    if not best.isfinite().all():
        raise ValueError("the model's scores of the next token are not finite")
    if temperature == 0:
        return scores.argmax(-1)
    scores = (scores - best).float() / max(temperature, torch.finfo(torch.float32).tiny)
    if top_k is not None:
        scores = keep_top_k(scores, top_k)
    if top_p is not None:
        scores = keep_top_p(scores, top_p)
    place = "cpu" if generator is None else generator.device
    drawn = torch.multinomial(scores.softmax(-1).to(place), 1, generator=generator)
    return drawn[:, 0].to(scores.device)


class TextStream:
    """The text of tokens as they come; what is not yet a whole character is held back.

    A token is decoded together with those before it, as some tokenizers write a space between two
    words and none before the first.

    Args:
        tokenizer: of the tokens.
        prompt: the tokens before, whose text is not shown again.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int] = ()) -> None:
        self.tokenizer = tokenizer
        self.shown = list(prompt)
        self.held: list[int] = []

    def push(self, token: int) -> str:
        """The text that a token completes, which may be none."""
        self.held.append(token)
        text = self._new_text()
        return "" if text.endswith(REPLACEMENT) else self._show(text)

    def end(self) -> str:
        """What was held back."""
        return self._show(self._new_text()) if self.held else ""

    def _new_text(self) -> str:
        before = self.tokenizer.decode(self.shown)
        return self.tokenizer.decode([*self.shown, *self.held])[len(before) :]

    def _show(self, text: str) -> str:
        self.shown, self.held = self.held, []
        return text


def _check(
    model: SequenceModel,
    prompt: Tensor,
    max_tokens: int | None,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
) -> None:
    if prompt.dim() != 2 or 0 in prompt.shape:
        raise ValueError(f"prompt must be [B, T] with T >= 1, got {list(prompt.shape)}")
    vocab_size = model.embedding.num_embeddings
    if not 0 <= int(prompt.min()) <= int(prompt.max()) < vocab_size:
        raise ValueError(
            f"prompt must have tokens from 0 to {vocab_size - 1}, got {int(prompt.min())} to "
            f"{int(prompt.max())}"
        )
    if max_tokens is not None and max_tokens < 1:
        raise ValueError(f"max_tokens must be >= 1, got {max_tokens}")
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ValueError(f"temperature must be finite and >= 0, got {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be >= 1, got {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must be in (0, 1], got {top_p}")


@torch.inference_mode()
def _steps(
    model: SequenceModel,
    inputs: Tensor,
    max_tokens: int | None,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    generator: torch.Generator | None,
) -> Iterator[Tensor]:
    state = None
    for _ in count() if max_tokens is None else range(max_tokens):
        last = torch.zeros_like(inputs, dtype=torch.bool)
        last[:, -1] = True
        scores, state, _ = model(inputs, state, at=last)
        tokens = draw(scores, temperature, top_k, top_p, generator)
        yield tokens
        inputs = tokens[:, None]
