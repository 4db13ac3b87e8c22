"""The Recurrent Delta network's mixing layer: a DeltaNet that sees its previous output."""

import torch
from torch import Tensor

from fastweights.layers.initialization import linear, normal, split_heads
from fastweights.layers.layer import AssociativeLayer
from fastweights.ops.precision import widest_dtype
from fastweights.ops.recurrent_delta import RecurrentDeltaState, recurrent_delta


class RecurrentDeltaNet(AssociativeLayer):
    """Recurrent Delta rule (Irie et al., 2021, section 3.2; 2023).

    The recurrent weights see each head's own output before the output projection, and are drawn
    from N(0, 1/head_dim). No biases, no positions.

    Args:
        dim: D.
        num_heads: H; `head_dim` defaults to dim / num_heads.
        generator: of the initial weights; PyTorch's default one if None.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 4,
        head_dim: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = head_dim = split_heads(dim, num_heads, head_dim)
        width = num_heads * head_dim
        self.input_projection = linear(dim, 3 * width + num_heads, bias=False, generator=generator)
        self.output_projection = linear(width, dim, bias=False, generator=generator)
        std = head_dim**-0.5
        shape = num_heads, head_dim, head_dim
        self.recurrent_q = normal(*shape, std=std, generator=generator)
        self.recurrent_k = normal(*shape, std=std, generator=generator)
        self.recurrent_v = normal(*shape, std=std, generator=generator)
        self.recurrent_beta = normal(num_heads, head_dim, std=std, generator=generator)

    def initial_state(self, batch_size: int) -> RecurrentDeltaState:
        shape = batch_size, self.num_heads, self.head_dim
        weight = self.recurrent_q
        output = weight.new_zeros(shape, dtype=widest_dtype(weight))
        return RecurrentDeltaState(output.new_zeros(*shape, self.head_dim), output)

    def forward(
        self, x: Tensor, state: RecurrentDeltaState | None = None
    ) -> tuple[Tensor, RecurrentDeltaState]:
        heads = self.input_projection(x).unflatten(-1, (self.num_heads, -1))
        q, k, v, beta_logit = heads.split([self.head_dim] * 3 + [1], -1)
        y, state = recurrent_delta(
            q,
            k,
            v,
            beta_logit.squeeze(-1),
            self.recurrent_q,
            self.recurrent_k,
            self.recurrent_v,
            self.recurrent_beta,
            state,
        )
        return self.output_projection(y.flatten(-2)), state

    def association(self, x: Tensor, state: RecurrentDeltaState) -> tuple[Tensor, Tensor]:
        heads = self.input_projection(x).unflatten(-1, (self.num_heads, -1))
        _, k, v, _ = heads.split([self.head_dim] * 3 + [1], -1)
        feedback = state.output.tanh()
        k = k + torch.einsum("bhi,hij->bhj", feedback, self.recurrent_k)
        return k.softmax(-1), v + torch.einsum("bhi,hij->bhj", feedback, self.recurrent_v)

    def read(self, keys: Tensor, state: RecurrentDeltaState) -> Tensor:
        return torch.einsum("bmhk,bhkv->bmhv", keys, state.memory)
