"""Random inputs of the ops, as a trained layer would give them."""

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.shapes import Shape

Inputs = dict[str, Tensor]


def make_inputs(question: str, size: Shape) -> Inputs:
    """The tensors by name, float32, the same at every call; sequences are [B, T, H, ...]."""
    return _MAKERS[question](size, torch.Generator().manual_seed(0))


def _memory_rule(size: Shape, generator: torch.Generator) -> Inputs:
    """Unit keys and queries, write strengths in (0, 1)."""
    axes = size.batch, size.time, size.heads or 1
    q, k, v = torch.randn(3, *axes, size.dim, generator=generator)
    beta = torch.randn(axes, generator=generator).sigmoid()
    return {"q": _unit(q), "k": _unit(k), "v": v.clone(), "beta": beta}


def _recurrent_delta(size: Shape, generator: torch.Generator) -> Inputs:
    heads, dim = size.heads or 1, size.dim
    axes = size.batch, size.time, heads
    q, k, v = torch.randn(3, *axes, dim, generator=generator)
    recurrent = torch.randn(3, heads, dim, dim, generator=generator) * dim**-0.5
    return {
        "q": q.clone(),
        "k": k.clone(),
        "v": v.clone(),
        "beta_logit": torch.randn(axes, generator=generator),
        "recurrent_q": recurrent[0].clone(),
        "recurrent_k": recurrent[1].clone(),
        "recurrent_v": recurrent[2].clone(),
        "recurrent_beta": torch.randn(heads, dim, generator=generator) * dim**-0.5,
    }


def _self_reference(size: Shape, generator: torch.Generator) -> Inputs:
    heads, dim = size.heads or 1, size.dim
    parts = {"output": dim, "query": dim, "key": dim, "write_strength": 4}
    inputs = {"x": torch.randn(size.batch, size.time, heads, dim, generator=generator)}
    for name, columns in parts.items():
        part = torch.randn(size.batch, heads, dim, columns, generator=generator) * dim**-0.5
        inputs[name] = part - 1 if name == "write_strength" else part
    return inputs


def _e_lstm(size: Shape, generator: torch.Generator) -> Inputs:
    z, f = torch.randn(2, size.batch, size.time, size.dim, generator=generator)
    peepholes = torch.randn(2, size.dim, generator=generator) * 0.1
    return {
        "z": z.clone(),
        "f": f.clone(),
        "peephole_z": peepholes[0].clone(),
        "peephole_f": peepholes[1].clone(),
    }


def _unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x, dim=-1)


_MAKERS: dict[str, Callable[[Shape, torch.Generator], Inputs]] = {
    "delta_rule": _memory_rule,
    "linear_attention": _memory_rule,
    "scaling": _memory_rule,
    "self_reference": _self_reference,
    "recurrent_delta": _recurrent_delta,
    "e_lstm": _e_lstm,
}
