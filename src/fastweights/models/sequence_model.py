"""One model for tagging and language modelling: embedding, blocks, output layer."""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastweights.layers.adaptive_softmax import AdaptiveSoftmax
from fastweights.layers.initialization import draw_normal, linear
from fastweights.models.block import Block
from fastweights.ops.cross_entropy import cross_entropy
from fastweights.ops.sinusoids import sinusoids

Embedding = Literal["learned", "one_hot", "tied"]
Positions = Literal["none", "sinusoidal"]
Initialization = Literal["layers", "normal"]


class SequenceOutput(NamedTuple):
    logits: Tensor  # [B, T, num_outputs], or [N, num_outputs] at N chosen positions
    state: tuple[Any, ...]  # one layer state a block, and a PositionState where there are positions
    balance_loss: Tensor  # scalar, summed over the feed-forward layers


class PositionState(NamedTuple):
    next: Tensor  # [B], the position of the next token


class SequenceLosses(NamedTuple):
    nats: Tensor  # [B, T], or [N] at N chosen positions; float32 at least
    state: tuple[Any, ...]  # as in SequenceOutput
    balance_loss: Tensor


class SequenceModel(nn.Module):
    """Tokens in, one score per output class at every position out.

    Args:
        dim: D, the width of the residual stream.
        vocab_size: number of input tokens, padding included.
        num_outputs: number of output classes.
        blocks: applied in order.
        final_norm: a LayerNorm before the output layer. Of the published models only the
            Transformer has one, and there it follows a norm.
        embedding: `learned`, drawn from N(0, 1), or `one_hot`: token i is the i-th unit vector of
            width dim, which needs vocab_size <= dim. Both are as wide as the model; the published
            LSTMs could have an embedding of another width, and one-hot input without the zeros.
            `tied`: drawn from N(0, 1/dim), and the output layer's weight, too, without a bias; it
            needs num_outputs == vocab_size.
        scale_embedding: multiply the embedding by sqrt(dim).
        embedding_dropout: dropout probability after the embedding and before the output layer.
        positions: `sinusoidal`: sines and cosines of the position are added to the embedding,
            counted from the beginning of the sequence and on from one call to the next. The
            published models count from the end of a segment, so that its last token is 0: for
            segments of one length that is another order of the same positions.
        adaptive_cutoffs: an adaptive softmax as the output layer (see `AdaptiveSoftmax`), for a
            tied embedding of words in the order of their frequency; None: a linear layer.
        initialization: `layers`: every layer as its own page says; `normal`: see `draw_normal`.
        generator: of the initial weights; PyTorch's default one if None.
    """

    def __init__(
        self,
        dim: int,
        vocab_size: int,
        num_outputs: int,
        blocks: Sequence[Block],
        final_norm: bool,
        embedding: Embedding = "learned",
        scale_embedding: bool = False,
        embedding_dropout: float = 0.0,
        positions: Positions = "none",
        adaptive_cutoffs: Sequence[int] | None = None,
        initialization: Initialization = "layers",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if embedding == "one_hot":
            if vocab_size > dim:
                raise ValueError(
                    f"embedding='one_hot' needs vocab_size <= dim, got {vocab_size} > {dim}"
                )
            self.embedding = nn.Embedding.from_pretrained(torch.eye(vocab_size, dim))
        else:
            std = dim**-0.5 if embedding == "tied" else 1.0
            weight = nn.init.normal_(torch.empty(vocab_size, dim), std=std, generator=generator)
            self.embedding = nn.Embedding.from_pretrained(weight, freeze=False)
        self.blocks = nn.ModuleList(blocks)
        self.final_norm = nn.LayerNorm(dim) if final_norm else nn.Identity()
        self.embedding_scale = math.sqrt(dim) if scale_embedding else 1.0
        self.embedding_dropout = nn.Dropout(embedding_dropout)
        self.positions = positions
        self.output: nn.Linear | AdaptiveSoftmax | None = None
        if embedding == "tied" and num_outputs != vocab_size:
            raise ValueError(
                f"embedding='tied' needs as many outputs as inputs, got {num_outputs} and "
                f"{vocab_size}"
            )
        if adaptive_cutoffs is not None:
            if embedding != "tied":
                raise ValueError(f"adaptive_cutoffs need embedding='tied', got {embedding!r}")
            self.output = AdaptiveSoftmax(dim, num_outputs, adaptive_cutoffs, generator)
        elif embedding != "tied":
            self.output = linear(dim, num_outputs, bias=True, generator=generator)
        if initialization == "normal":
            draw_normal(self, generator)

    def initial_state(self, batch_size: int) -> tuple[Any, ...]:
        layers = (cast(Block, block).layer for block in self.blocks)
        states = tuple(layer.initial_state(batch_size) for layer in layers)
        if self.positions == "none":
            return states
        device = self.embedding.weight.device
        first = torch.zeros(batch_size, dtype=torch.int64, device=device)
        return *states, PositionState(first)

    def forward(
        self,
        inputs: Tensor,
        state: Sequence[Any] | None = None,
        at: Tensor | None = None,
        targets: Tensor | None = None,
    ) -> SequenceOutput | SequenceLosses:
        """`inputs [B, T]`, token numbers, and the state that an earlier call returned.

        With `at [B, T]`, there are scores only where it is True, row by row: with many classes the
        output layer takes most of the time. With `targets [B, T]`, there are the losses of these
        instead of scores: what wraps the model (Fabric, DDP, FSDP) sees only calls of the model
        itself, so training calls `model(inputs, state, targets=targets)`.
        """
        x, positions = self._embed(inputs, state)
        balance_loss = torch.zeros((), device=x.device)
        states = []
        for number, block in enumerate(self.blocks):
            x, block_state, block_loss = block(x, None if state is None else state[number])
            states.append(block_state)
            balance_loss = balance_loss + block_loss
        after = *states, *positions
        x = self.embedding_dropout(self.final_norm(x if at is None else x[at]))
        if targets is None:
            return SequenceOutput(self.scores(x), after, balance_loss)
        targets = targets if at is None else targets[at]
        if isinstance(self.output, AdaptiveSoftmax):
            nats = self.output.nats(x, targets, self.embedding.weight)
        else:
            nats = cross_entropy(self.scores(x), targets)
        return SequenceLosses(nats, after, balance_loss)

    def scores(self, x: Tensor) -> Tensor:
        """The output layer: `x [..., D]` -> `[..., num_outputs]`, log-probabilities where it is an
        adaptive softmax."""
        if self.output is None:
            return F.linear(x, self.embedding.weight)
        if isinstance(self.output, AdaptiveSoftmax):
            return cast(Tensor, self.output(x, self.embedding.weight))
        return cast(Tensor, self.output(x))

    def _embed(
        self, inputs: Tensor, state: Sequence[Any] | None
    ) -> tuple[Tensor, tuple[PositionState, ...]]:
        """What enters the first block, and what the next call has to know of positions."""
        x = self.embedding(inputs)
        if self.embedding_scale != 1:
            x = self.embedding_scale * x
        if self.positions == "none":
            return self.embedding_dropout(x), ()
        batch_size, length = inputs.shape
        first = inputs.new_zeros(batch_size) if state is None else state[-1].next
        position = first[:, None] + torch.arange(length, device=inputs.device)
        x = x + sinusoids(position, x.shape[-1], like=x)
        return self.embedding_dropout(x), (PositionState(first + length),)

    def losses(
        self, inputs: Tensor, targets: Tensor, state: Sequence[Any] | None = None
    ) -> SequenceLosses:
        """-log p(target) at every position, in nats: the call of the model with `targets`."""
        output = self(inputs, state, targets=targets)
        assert isinstance(output, SequenceLosses)
        return output
