"""Who runs in each question: our kernels, our other forms, PyTorch's attention, other libraries."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.inputs import Inputs
from benchmarks.peers import fla_naive, hugging_face_delta_rule
from benchmarks.shapes import Shape
from fastweights.ops import (
    RecurrentDeltaState,
    SelfReferenceState,
    delta_rule,
    delta_rule_chunk,
    e_lstm,
    e_lstm_recurrent,
    e_lstm_step,
    linear_attention,
    linear_attention_chunk,
    recurrent_delta,
    recurrent_delta_recurrent,
    recurrent_delta_step,
    self_reference,
    self_reference_recurrent,
    self_reference_step,
)

Run = Callable[..., Tensor]

MAX_KEPT_GIB = 2.0
"""A loop that keeps more than this for its backward pass is not timed: it would measure the
allocator."""


@dataclass(frozen=True)
class Candidate:
    """One way to compute an op.

    Args:
        name: in the tables.
        load: returns the function from `arguments` to the outputs; raises PeerMissing.
        arguments: names of the inputs that it takes.
        reference: the candidate whose outputs and gradients it must have; None: another function.
        heads_first: it takes and returns [B, H, T, ...].
        scales_query: it multiplies q by K^-0.5, which its inputs take back.
        kept_memories: memories [K, V] that autograd keeps for each step and head, about.
    """

    name: str
    load: Callable[[], Run]
    arguments: tuple[str, ...]
    reference: str | None
    heads_first: bool = False
    scales_query: bool = False
    kept_memories: int = 0

    def leaves(self, inputs: Inputs) -> list[Tensor]:
        """Its own copies of the inputs, contiguous in its layout, that require gradients."""
        found = []
        for name in self.arguments:
            x = inputs[name]
            if self.scales_query and name == "q":
                x = x * x.shape[-1] ** 0.5
            x = x.transpose(1, 2) if self.heads_first else x
            found.append(x.clone(memory_format=torch.contiguous_format).requires_grad_())
        return found

    def common(self, name: str, x: Tensor) -> Tensor:
        """An output ("y") or the gradient of an input, in the layout and the scale of all."""
        x = x.transpose(1, 2) if self.heads_first else x
        return x * x.shape[-1] ** 0.5 if self.scales_query and name == "q" else x

    def too_large(self, size: Shape) -> str | None:
        """Why its backward pass is left out of the times."""
        kept = self.kept_memories * size.batch * (size.heads or 1) * size.time * size.dim**2 * 4
        if kept / 2**30 <= MAX_KEPT_GIB:
            return None
        return f"autograd keeps about {kept / 2**30:.0f} GiB"


OURS = "fastweights"
CHUNK = "fastweights, chunk form"
LOOP = "fastweights, reference loop"
STEPS = "loop of PyTorch steps"
SDPA = "SDPA, causal"
FLA_RECURRENCE = "fla, naive recurrence"
FLA_CHUNK = "fla, naive chunk"
HUGGING_FACE = "Hugging Face, torch chunk"

DESCRIPTIONS = {
    OURS: "the op with `backend='cpu'`",
    CHUNK: "the chunk form in plain PyTorch, hand-written backward pass",
    LOOP: "the op's `*_recurrent` in plain PyTorch, with autograd",
    STEPS: "a Python loop over the op's `*_step`, with autograd",
    SDPA: "`torch.nn.functional.scaled_dot_product_attention(is_causal=True)`, another function of "
    "the same inputs",
    FLA_RECURRENCE: "flash-linear-attention's plain PyTorch loop (`delta_rule_recurrence`, "
    "`naive_recurrent_linear_attn`)",
    FLA_CHUNK: "flash-linear-attention's plain PyTorch chunk form (`delta_rule_chunkwise`, C = 32; "
    "`naive_chunk_linear_attn`, C = 64)",
    HUGGING_FACE: "transformers' `torch_chunk_gated_delta_rule` with gates at 0, C = 64",
}

_MEMORY = ("q", "k", "v", "beta")
_FEEDBACK = ("recurrent_q", "recurrent_k", "recurrent_v", "recurrent_beta")
_RECURRENT = ("q", "k", "v", "beta_logit", *_FEEDBACK)
_SELF = ("x", "output", "query", "key", "write_strength")
_E_LSTM = ("z", "f", "peephole_z", "peephole_f")


def _sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def _fla_delta(function: str) -> Run:
    op = fla_naive("delta_rule", function)
    return lambda *x: op(*x)[0]


def _fla_recurrent_linear() -> Run:
    op = fla_naive("linear_attn", "naive_recurrent_linear_attn")
    return lambda q, k, v: op(q, k, v, scale=1.0)[0]


def _fla_chunk_linear() -> Run:
    op = fla_naive("linear_attn", "naive_chunk_linear_attn")
    return lambda q, k, v: op(q, k, v, scale=1.0)


def _hugging_face() -> Run:
    op = hugging_face_delta_rule()
    return lambda q, k, v, beta: op(q, k, v, torch.zeros_like(beta), beta)[0]


def _delta_rule(*x: Tensor) -> Tensor:
    return delta_rule(*x, backend="cpu")[0]


def _linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return linear_attention(q, k, v, backend="cpu")[0]


def _self_reference_steps(x: Tensor, *parts: Tensor) -> Tensor:
    state, ys = SelfReferenceState(*parts), []
    for x_t in x.unbind(1):
        y, state = self_reference_step(x_t, state)
        ys.append(y)
    return torch.stack(ys, 1)


def _recurrent_delta_steps(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta_logit: Tensor,
    recurrent_q: Tensor,
    recurrent_k: Tensor,
    recurrent_v: Tensor,
    recurrent_beta: Tensor,
) -> Tensor:
    batch, _, heads, dim = q.shape
    output = q.new_zeros(batch, heads, dim)
    state, ys = RecurrentDeltaState(output.new_zeros(batch, heads, dim, dim), output), []
    weights = recurrent_q, recurrent_k, recurrent_v, recurrent_beta
    for t in range(q.shape[1]):
        y, state = recurrent_delta_step(
            q[:, t], k[:, t], v[:, t], beta_logit[:, t], *weights, state
        )
        ys.append(y)
    return torch.stack(ys, 1)


def _e_lstm_steps(z: Tensor, f: Tensor, peephole_z: Tensor, peephole_f: Tensor) -> Tensor:
    cell, cells = z.new_zeros(z.shape[0], z.shape[-1]), []
    for z_t, f_t in zip(z.unbind(1), f.unbind(1), strict=True):
        cell = e_lstm_step(z_t, f_t, peephole_z, peephole_f, cell)
        cells.append(cell)
    return torch.stack(cells, 1)


_SDPA = Candidate(SDPA, lambda: _sdpa, ("q", "k", "v"), None, heads_first=True)

CANDIDATES: dict[str, tuple[Candidate, ...]] = {
    "delta_rule": (
        Candidate(OURS, lambda: _delta_rule, _MEMORY, None),
        Candidate(CHUNK, lambda: lambda *x: delta_rule_chunk(*x)[0], _MEMORY, OURS),
        _SDPA,
        Candidate(
            FLA_RECURRENCE,
            lambda: _fla_delta("delta_rule_recurrence"),
            _MEMORY,
            OURS,
            heads_first=True,
            scales_query=True,
            kept_memories=3,
        ),
        Candidate(
            FLA_CHUNK,
            lambda: _fla_delta("delta_rule_chunkwise"),
            _MEMORY,
            OURS,
            heads_first=True,
            scales_query=True,
        ),
        Candidate(HUGGING_FACE, _hugging_face, _MEMORY, OURS, scales_query=True),
    ),
    "linear_attention": (
        Candidate(OURS, lambda: _linear_attention, _MEMORY[:3], None),
        Candidate(CHUNK, lambda: lambda *x: linear_attention_chunk(*x)[0], _MEMORY[:3], OURS),
        _SDPA,
        Candidate(FLA_RECURRENCE, _fla_recurrent_linear, _MEMORY[:3], OURS, kept_memories=3),
        Candidate(FLA_CHUNK, _fla_chunk_linear, _MEMORY[:3], OURS),
    ),
    "self_reference": (
        Candidate(
            OURS,
            lambda: lambda x, *w: self_reference(x, SelfReferenceState(*w), backend="cpu")[0],
            _SELF,
            None,
        ),
        Candidate(
            LOOP,
            lambda: lambda x, *w: self_reference_recurrent(x, SelfReferenceState(*w))[0],
            _SELF,
            OURS,
        ),
        Candidate(STEPS, lambda: _self_reference_steps, _SELF, OURS),
    ),
    "recurrent_delta": (
        Candidate(OURS, lambda: lambda *x: recurrent_delta(*x, backend="cpu")[0], _RECURRENT, None),
        Candidate(LOOP, lambda: lambda *x: recurrent_delta_recurrent(*x)[0], _RECURRENT, OURS),
        Candidate(STEPS, lambda: _recurrent_delta_steps, _RECURRENT, OURS),
    ),
    "e_lstm": (
        Candidate(OURS, lambda: lambda *x: e_lstm(*x, backend="cpu")[0], _E_LSTM, None),
        Candidate(LOOP, lambda: lambda *x: e_lstm_recurrent(*x)[0], _E_LSTM, OURS),
        Candidate(STEPS, lambda: _e_lstm_steps, _E_LSTM, OURS),
    ),
    "scaling": (
        Candidate("delta rule", lambda: _delta_rule, _MEMORY, None),
        Candidate(
            "delta rule, chunk form",
            lambda: lambda *x: delta_rule_chunk(*x)[0],
            _MEMORY,
            "delta rule",
        ),
        Candidate("linear attention", lambda: _linear_attention, _MEMORY[:3], None),
        Candidate(
            "linear attention, chunk form",
            lambda: lambda *x: linear_attention_chunk(*x)[0],
            _MEMORY[:3],
            "linear attention",
        ),
        _SDPA,
    ),
}
