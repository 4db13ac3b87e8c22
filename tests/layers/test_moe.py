"""The mixture of experts equals the sums that define it; initialisation, dropout, messages."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fastweights.layers.moe import ROUTINGS, MoE
from fastweights.ops.routing import Routing
from tests.ops.compare import assert_near

VARIANTS = [{}, {"gated": True}, {"bias": True}, {"gated": True, "bias": True}]


def make_layer(generator, **options) -> MoE:
    """In float64, with biases that are not 0."""
    layer = MoE(
        6, **{"num_experts": 5, "expert_dim": 3, "top_k": 2, **options}, generator=generator
    )
    layer = layer.double()
    for bias in (layer.up_bias, layer.down_bias):
        if bias is not None:
            torch.nn.init.normal_(bias, generator=generator)
    return layer


def make_x(generator, *shape: int) -> Tensor:
    return torch.randn(*(shape or (2, 7, 6)), generator=generator, dtype=torch.float64)


def expert_by_expert(layer: MoE, x: Tensor, routing: Routing) -> Tensor:
    """Every expert on every token, times its gate or 0: the definition, for tokens `[N, D]`."""
    gates = x.new_zeros(len(x), layer.num_experts)
    gates = gates.scatter(1, routing.expert_index, routing.gate)
    y = torch.zeros_like(x)
    for e in range(layer.num_experts):
        hidden = F.linear(x, layer.up[e], None if layer.up_bias is None else layer.up_bias[e])
        if layer.gated:
            key, factor = hidden.chunk(2, -1)
            hidden = key.relu() * factor
        out = hidden.relu() @ layer.down[e] if not layer.gated else hidden @ layer.down[e]
        y = y + gates[:, e, None] * (out if layer.down_bias is None else out + layer.down_bias[e])
    return y


@pytest.mark.parametrize("router", ROUTINGS)
@pytest.mark.parametrize("options", VARIANTS)
def test_equals_the_sum_over_all_experts(generator, router, options):
    layer = make_layer(generator, router=router, **options).eval()
    x = make_x(generator).requires_grad_()
    leaves = [x, *layer.parameters()]
    y, balance_loss = layer(x)
    routing = layer.router(x.flatten(0, 1))
    want = expert_by_expert(layer, x.flatten(0, 1), routing).view_as(x)
    direction = make_x(generator)
    got_gradients, want_gradients = (
        torch.autograd.grad((out * direction).sum() + loss, leaves, allow_unused=True)
        for out, loss in ((y, balance_loss), (want, layer.balance_weight * routing.balance_loss))
    )
    assert_near([y], [want])
    torch.testing.assert_close(got_gradients, want_gradients)


@pytest.mark.parametrize("gated", [False, True])
def test_all_experts_with_unit_gates_are_one_dense_network(generator, gated):
    layer = make_layer(generator, top_k=5, gated=gated)
    x = make_x(generator, 9, 6)
    index = torch.arange(5).expand(9, 5)
    got = layer._experts(x, index, torch.ones_like(index, dtype=torch.float64))
    keys, *factors = (part.flatten(0, 1) for part in layer.up.split(3, 1))
    hidden = (x @ keys.T).relu()
    for factor in factors:
        hidden = hidden * (x @ factor.T)
    torch.testing.assert_close(got, hidden @ layer.down.flatten(0, 1))


def test_order_of_the_experts_does_not_matter(generator):
    layer, other = make_layer(generator, bias=True), make_layer(generator, bias=True)
    order = torch.tensor([3, 0, 4, 1, 2])
    other.load_state_dict({name: part[order] for name, part in layer.state_dict().items()})
    x = make_x(generator)
    torch.testing.assert_close(other(x), layer(x))


@pytest.mark.parametrize("width", [7, 8])
def test_unused_experts_get_zero_gradients(generator, width):
    layer = MoE(8, 5, width, 2, balance_weight=0, generator=generator)
    with torch.no_grad():
        layer.router.weight[[1, 4]] = 0
        layer.router.weight[[0, 2, 3]] = 1
    y, _ = layer(torch.rand(2, 5, 8, generator=generator))
    for gradient in torch.autograd.grad(y.square().sum(), [layer.up, layer.down]):
        assert gradient[[1, 4]].eq(0).all()
        assert gradient.ne(0).any()


@pytest.mark.parametrize(
    ("initialization", "scale", "fan_in"),
    [("ff_dim", 1, 8 * 32), ("expert_dim", 1, 32), ("switch", 0.1, 32)],
)
def test_starts_with_the_published_distributions(generator, initialization, scale, fan_in):
    layer = MoE(64, 8, 32, initialization=initialization, num_layers=3, generator=generator)
    up_std = math.sqrt(2 * scale / (64 * 3))
    assert layer.up.std().item() == pytest.approx(up_std, rel=0.03)
    assert layer.down.std().item() == pytest.approx(math.sqrt(2 * scale / (fan_in * 3)), rel=0.03)
    assert layer.router.weight.std().item() == pytest.approx(up_std, rel=0.1)
    norms = layer.router.weight.norm(dim=1)
    even = norms.allclose(torch.tensor(up_std * 8))
    assert even == (initialization != "switch")


@pytest.mark.parametrize(
    ("dim", "num_experts", "num_layers", "up_std", "down_std", "standard_std"),
    [
        pytest.param(412, 16, 16, 0.01742, 0.00781, 0.03125, id="WT-S"),
        pytest.param(412, 128, 16, 0.01742, 0.00276, 0.03125, id="WT-S*"),
        pytest.param(1024, 32, 18, 0.01042, 0.00521, 0.02946, id="WT-B"),
        pytest.param(512, 16, 12, 0.01804, 0.00902, 0.03608, id="E8"),
    ],
)
def test_published_standard_deviations(
    generator, dim, num_experts, num_layers, up_std, down_std, standard_std
):
    """A layer of each published model, and with "standard init": numbers of five decimals."""
    for initialization, of_down in (("ff_dim", down_std), ("expert_dim", standard_std)):
        layer = MoE(
            dim,
            num_experts,
            initialization=initialization,
            num_layers=num_layers,
            generator=generator,
        )
        assert layer.up.std().item() == pytest.approx(up_std, rel=0.003)
        assert layer.down.std().item() == pytest.approx(of_down, rel=0.003)
        assert layer.router.weight.std().item() == pytest.approx(up_std, rel=0.003)
        assert sum(part.numel() for part in layer.parameters()) == num_experts * dim * 257


def test_same_generator_same_layer(make_generator):
    layers = [MoE(6, 5, 3, 2, router="noisy_top_k", generator=make_generator(3)) for _ in "ab"]
    torch.testing.assert_close(*(layer.state_dict() for layer in layers), rtol=0, atol=0)


@pytest.mark.parametrize("router", ROUTINGS)
def test_few_experts_and_much_dropout_stay_finite(generator, router):
    torch.manual_seed(0)
    layer = make_layer(generator, top_k=4, router=router, expert_dropout=0.8, hidden_dropout=0.5)
    y, balance_loss = layer(make_x(generator))
    (y.square().sum() + balance_loss).backward()
    assert y.isfinite().all()
    assert balance_loss.isfinite()
    assert all(part.grad.isfinite().all() for part in layer.parameters())


def test_dropout_is_of_training(generator):
    layer = make_layer(generator, expert_dropout=0.5, hidden_dropout=0.5)
    x = make_x(generator)
    torch.manual_seed(0)
    assert not layer(x)[0].equal(layer(x)[0])
    layer.eval()
    assert layer(x)[0].equal(layer(x)[0])


def test_s_base_evaluates_as_sigma_moe(generator):
    layer = make_layer(generator, router="s_base")
    x = make_x(generator)
    trained = layer(x)[0]
    layer.eval()
    evaluated = layer(x)[0]
    layer.router.kind = "sigmoid"
    assert layer(x)[0].equal(evaluated)
    assert not trained.equal(evaluated)


@pytest.mark.parametrize("router", ROUTINGS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_dtypes_are_consistent(generator, router, dtype):
    layer = MoE(12, 5, 7, 2, router=router, gated=True, bias=True, generator=generator)
    x = make_x(generator, 2, 5, 12).float()
    want = layer.eval()(x)
    with torch.autocast("cpu", dtype):
        y, balance_loss = layer(x)
        assert (y.dtype, balance_loss.dtype) == (dtype, torch.float32)
        (y.float().sum() + balance_loss).backward()
    gradients = [part.grad for part in layer.parameters() if part.grad is not None]
    assert {gradient.dtype for gradient in gradients} == {torch.float32}
    torch.testing.assert_close(balance_loss, want[1])  # the router is not rounded
    assert_near([y], [want[0]], 0.05)
    y, balance_loss = layer.to(dtype)(x.to(dtype))
    assert (y.dtype, balance_loss.dtype) == (dtype, torch.float32)


@pytest.mark.parametrize("options", [{}, {"gated": True, "bias": True}])
def test_compiled_without_a_break(generator, options):
    layer = make_layer(generator, **options)
    x = make_x(generator)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), layer(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 6}, "top_k=6, num_experts=5"),
        ({"top_k": 0}, "top_k=0, num_experts=5"),
        ({"num_experts": -1}, "num_experts must be >= 1, got -1"),
        ({"expert_dim": 0}, "expert_dim must be >= 1, got 0"),
        ({"num_layers": 0}, "num_layers must be >= 1, got 0"),
        ({"expert_dropout": 1.0}, r"expert_dropout must be in \[0, 1\), got 1.0"),
        ({"hidden_dropout": -0.1}, r"hidden_dropout must be in \[0, 1\), got -0.1"),
        ({"balance_weight": -1.0}, "balance_weight must be finite and >= 0, got -1.0"),
        ({"router": "best"}, "router must be one of sigmoid, .*got 'best'"),
        ({"initialization": "zero"}, "initialization must be one of ff_dim, .*got 'zero'"),
    ],
)
def test_bad_values_are_named(generator, options, message):
    with pytest.raises(ValueError, match=message):
        make_layer(generator, **options)
