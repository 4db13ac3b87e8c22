"""The weights of the values, against reading the memory itself."""

from functools import partial

import pytest
import torch

from fastweights.ops.delta_rule import delta_rule_recurrent
from fastweights.ops.delta_rule_weights import delta_rule_weights
from tests.ops.compare import assert_near, with_gradients
from tests.ops.test_delta_rule import make_inputs


@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize(("T", "K"), [(1, 4), (2, 3), (33, 4), (20, 130)])
@pytest.mark.parametrize("M", [1, 3])
def test_weights_are_how_much_of_each_value_is_read_after_the_last_step(backend, T, K, M):
    _, k, v, beta, _ = make_inputs(T=T, H=3, K=K)
    q, *_ = make_inputs(T=M, H=3, K=K, seed=2)

    def through_the_memory(q, k, v, beta):
        _, memory = delta_rule_recurrent(k, k, v, beta)
        return (torch.einsum("bmhk,bhkv->bmhv", q, memory),)

    def through_the_weights(q, k, v, beta):
        weights = delta_rule_weights(q, k, beta, backend=backend)
        return (torch.einsum("bhmt,bthv->bmhv", weights, v),)

    inputs = [q, k, v, beta]
    want = with_gradients(through_the_memory, inputs)
    torch.testing.assert_close(with_gradients(through_the_weights, inputs), want)


def test_weights_in_float32_over_many_steps():
    """Also for keys at which the read vector turns: beta |k|^2 up to 2."""
    q, k, _, beta, _ = make_inputs(T=2000, K=64)
    q = q[:, :2]

    def weights(*inputs, backend="cpu"):
        return (delta_rule_weights(*inputs, backend=backend),)

    want = with_gradients(partial(weights, backend="torch"), [q, k, beta])
    got = with_gradients(weights, [x.float() for x in (q, k, beta)])
    assert_near(got, want)


def test_opcheck_of_the_weights():
    q, k, _, beta, _ = make_inputs(K=4)
    inputs = [x.requires_grad_() for x in (q, k, beta)]
    delta_rule_weights(*inputs, backend="cpu")
    torch.library.opcheck(torch.ops.fastweights.delta_rule_weights, (*inputs, 4))


def test_weights_need_shapes_that_fit():
    q, k, _, beta, _ = make_inputs()
    with pytest.raises(ValueError, match=r"delta_rule_weights needs .* k \[2, 5, 2, 3\]"):
        delta_rule_weights(q, k[..., :3], beta)
