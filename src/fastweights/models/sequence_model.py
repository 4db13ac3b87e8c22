"""One model for tagging and language modelling: embedding, blocks, output layer."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastweights.layers.initialization import linear
from fastweights.models.block import Block
from fastweights.ops.precision import widest_dtype

Embedding = Literal["learned", "one_hot", "tied"]


class SequenceOutput(NamedTuple):
    logits: Tensor  # [B, T, num_outputs], or [N, num_outputs] at N chosen positions
    state: tuple[Any, ...]  # one layer state a block
    balance_loss: Tensor  # scalar, summed over the feed-forward layers


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
        self.output: nn.Linear | None = None
        if embedding != "tied":
            self.output = linear(dim, num_outputs, bias=True, generator=generator)
        elif num_outputs != vocab_size:
            raise ValueError(
                f"embedding='tied' needs as many outputs as inputs, got {num_outputs} and "
                f"{vocab_size}"
            )

    def initial_state(self, batch_size: int) -> tuple[Any, ...]:
        layers = (cast(Block, block).layer for block in self.blocks)
        return tuple(layer.initial_state(batch_size) for layer in layers)

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
        x = self.embedding(inputs)
        balance_loss = torch.zeros((), device=x.device)
        states = []
        for number, block in enumerate(self.blocks):
            x, block_state, block_loss = block(x, None if state is None else state[number])
            states.append(block_state)
            balance_loss = balance_loss + block_loss
        x = self.final_norm(x if at is None else x[at])
        logits = F.linear(x, self.embedding.weight) if self.output is None else self.output(x)
        if targets is None:
            return SequenceOutput(logits, tuple(states), balance_loss)
        nats = cross_entropy(logits, targets if at is None else targets[at])
        return SequenceLosses(nats, tuple(states), balance_loss)

    def losses(
        self, inputs: Tensor, targets: Tensor, state: Sequence[Any] | None = None
    ) -> SequenceLosses:
        """-log p(target) at every position, in nats: the call of the model with `targets`."""
        output = self(inputs, state, targets=targets)
        assert isinstance(output, SequenceLosses)
        return output


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """-log softmax(logits)[target]: logits `[..., C]`, targets `[...]` -> nats `[...]`, computed in
    float32 at least."""
    logits = logits.to(widest_dtype(logits))
    nats = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none")
    return nats.view(targets.shape)
