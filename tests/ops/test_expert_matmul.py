"""The two products equal one small product a route; experts without tokens get no gradient."""

import pytest
import torch
from torch import Tensor

from fastweights.ops import expert_matmul
from fastweights.ops.expert_matmul import expert_down, expert_up, sort_routes
from tests.ops.compare import assert_near, with_gradients

SHAPES = [
    (1, 1, 1, 1, 1),
    (1, 4, 4, 8, 4),
    (37, 5, 3, 8, 12),
    (37, 5, 2, 7, 11),
    (130, 3, 1, 16, 4),
]


def make_inputs(N: int, E: int, K: int, F: int, D: int, dtype: torch.dtype) -> list[Tensor]:
    """expert_index, x, up, down; expert 1, where there is one to spare, serves nobody."""
    g = torch.Generator().manual_seed(0)
    score = torch.rand(N, E, generator=g)
    if K < E:
        score[:, 1] = -1
    sizes = (N, D), (E, F, D), (E, F, D)
    floats = [torch.randn(size, generator=g, dtype=torch.float64).to(dtype) for size in sizes]
    return [score.topk(K).indices, *floats]


def up_by_route(x: Tensor, weight: Tensor, expert_index: Tensor) -> Tensor:
    """[N, K, F]: the definition."""
    return torch.einsum("nkfd,nd->nkf", weight[expert_index], x)


def down_by_route(hidden: Tensor, weight: Tensor, expert_index: Tensor) -> Tensor:
    """[N, D]: the definition, from hidden vectors [N, K, F]."""
    return torch.einsum("nkf,nkfd->nd", hidden, weight[expert_index])


def two_layers(x: Tensor, up: Tensor, down: Tensor, expert_index: Tensor) -> list[Tensor]:
    routes = sort_routes(expert_index, len(up))
    return [expert_down(expert_up(x, up, routes).tanh(), down, routes)]


def two_layers_by_route(x: Tensor, up: Tensor, down: Tensor, expert_index: Tensor) -> list[Tensor]:
    return [down_by_route(up_by_route(x, up, expert_index).tanh(), down, expert_index)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sorted_equals_route_by_route(shape, dtype):
    expert_index, *inputs = make_inputs(*shape, dtype)
    got = with_gradients(lambda *x: two_layers(*x, expert_index), inputs)
    want = with_gradients(lambda *x: two_layers_by_route(*x, expert_index), inputs)
    assert_near(got, want)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(37, 5, 3, 8, 16), (37, 5, 3, 8, 412), (9, 4, 2, 7, 11)])
def test_short_floats_at_every_width(shape, dtype):
    """grouped_mm would refuse rows of 412 numbers of two bytes."""
    expert_index, *inputs = make_inputs(*shape, dtype)
    got = with_gradients(lambda *x: two_layers(*x, expert_index), inputs)
    wide = [x.double() for x in inputs]
    want = with_gradients(lambda *x: two_layers_by_route(*x, expert_index), wide)
    assert {x.dtype for x in got} == {dtype}
    assert_near(got, want, 0.03)


def test_grouped_mm_equals_products_by_expert(monkeypatch):
    expert_index, *inputs = make_inputs(50, 6, 3, 8, 12, torch.float32)
    assert expert_matmul._served_by_grouped_mm(8, 12, torch.float32)
    want = with_gradients(lambda *x: two_layers(*x, expert_index), inputs)
    monkeypatch.setattr(expert_matmul, "_served_by_grouped_mm", lambda *_: False)
    assert_near(with_gradients(lambda *x: two_layers(*x, expert_index), inputs), want)


@pytest.mark.parametrize("width", [7, 8])
def test_experts_without_tokens_get_zero_gradients(width):
    expert_index, *inputs = make_inputs(20, 5, 2, width, 4, torch.float32)
    gradients = with_gradients(lambda *x: two_layers(*x, expert_index), inputs)[-2:]
    for gradient in gradients:
        assert gradient[1].eq(0).all()
        assert gradient[expert_index[0]].ne(0).any()


def test_same_numbers_twice():
    expert_index, *inputs = make_inputs(100, 5, 3, 8, 12, torch.float32)
    first, second = (with_gradients(lambda *x: two_layers(*x, expert_index), inputs) for _ in "ab")
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_gradcheck():
    expert_index, *inputs = make_inputs(5, 3, 2, 2, 3, torch.float64)
    leaves = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(lambda *x: two_layers(*x, expert_index), leaves)


def test_routes_are_sorted_by_expert_then_token():
    expert_index = torch.tensor([[3, 0], [0, 3], [2, 0]])
    routes = sort_routes(expert_index, 5)
    assert routes.expert.tolist() == [0, 0, 0, 2, 3, 3]
    assert (routes.order // 2).tolist() == [0, 1, 2, 2, 0, 1]
    assert routes.position.tolist() == [[4, 0], [1, 5], [3, 2]]
    assert routes.end.tolist() == [3, 3, 4, 6, 6]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_opcheck(dtype):
    expert_index, x, up, down = make_inputs(6, 3, 2, 4, 8, dtype)
    _, *places = sort_routes(expert_index, 3)
    hidden = torch.randn(12, 4, dtype=dtype, generator=torch.Generator().manual_seed(1))
    for op, rows, weight in (("expert_up", x, up), ("expert_down", hidden, down)):
        leaves = [part.requires_grad_() for part in (rows, weight)]
        torch.library.opcheck(getattr(torch.ops.fastweights, op), (*leaves, *places))


def test_compiled_without_a_break():
    expert_index, *inputs = make_inputs(9, 4, 2, 8, 12, torch.float32)
    compiled = torch.compile(two_layers, fullgraph=True, backend="aot_eager")
    got = with_gradients(lambda *x: compiled(*x, expert_index), inputs)
    assert_near(got, with_gradients(lambda *x: two_layers(*x, expert_index), inputs))


def test_autocast_lowers_both_products():
    expert_index, *inputs = make_inputs(9, 4, 2, 8, 12, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y, *gradients = with_gradients(lambda *x: two_layers(*x, expert_index), inputs)
    assert y.dtype == torch.bfloat16
    assert {x.dtype for x in gradients} == {torch.float32}


def test_messages_name_the_values():
    expert_index, x, up, _ = make_inputs(6, 3, 2, 4, 8, torch.float32)
    routes = sort_routes(expert_index, 3)
    with pytest.raises(
        ValueError, match=r"expert_index must be \[N, K\] int64, got \[6, 2\] .*int32"
    ):
        sort_routes(expert_index.int(), 3)
    with pytest.raises(ValueError, match=r"6 routed tokens and weight \[3, 4, 8\], got \[5, 8\]"):
        expert_up(x[:5], up, routes)
    with pytest.raises(ValueError, match=r"must be torch.float32 .*, got torch.float64"):
        expert_up(x, up.double(), routes)
    with pytest.raises(ValueError, match=r"\[E, F, D\] for 3 experts, got \[2, 4, 8\]"):
        expert_up(x, up[:2], routes)
    with pytest.raises(ValueError, match=r"12 routes and weight \[3, 4, 8\], got \[6, 8\]"):
        expert_down(x, up, routes)
