"""A layer gives the same numbers on a GPU as on a CPU."""

import pytest
import torch
from torch.utils._pytree import tree_leaves

from fastweights.models.menu import SEQUENCE_LAYERS


@pytest.mark.gpu
@pytest.mark.parametrize("name", SEQUENCE_LAYERS)
def test_cuda_equals_cpu(name, generator):
    layer = SEQUENCE_LAYERS[name](16, generator=generator).double()
    x = torch.randn(3, 70, 16, generator=generator, dtype=torch.float64)
    want, want_state = layer(x)
    got, got_state = layer.cuda()(x.cuda())
    torch.testing.assert_close(got.cpu(), want)
    got_state = [part.cpu() for part in tree_leaves(got_state)]
    torch.testing.assert_close(got_state, tree_leaves(want_state))
