"""The adaptive softmax equals PyTorch's, and never makes the scores of all words for a loss."""

import pytest
import torch
from torch import nn

from fastweights.layers.adaptive_softmax import AdaptiveSoftmax

D, C, CUTOFFS = 6, 23, (5, 9, 17)


@pytest.fixture
def softmax(generator):
    layer = AdaptiveSoftmax(D, C, CUTOFFS, generator).double()
    nn.init.normal_(layer.bias, generator=generator)
    weight = torch.randn(C, D, generator=generator, dtype=torch.float64, requires_grad=True)
    return layer, weight


def test_it_is_pytorchs_with_identities_in_the_clusters(softmax, generator):
    layer, weight = softmax
    nn.init.zeros_(layer.bias[CUTOFFS[0] :].data)  # it has no biases there
    theirs = nn.AdaptiveLogSoftmaxWithLoss(D, C, list(CUTOFFS), div_value=1, head_bias=True)
    theirs = theirs.double()
    head = slice(0, CUTOFFS[0])
    theirs.head.weight.data = torch.cat([weight.detach()[head], layer.clusters.weight.detach()])
    theirs.head.bias.data = torch.cat([layer.bias.detach()[head], layer.clusters.bias.detach()])
    for tail, (first, last) in zip(theirs.tail, ((5, 9), (9, 17), (17, 23)), strict=True):
        identity, words = tail.children()
        identity.weight.data = torch.eye(D, dtype=torch.float64)
        words.weight.data = weight.detach()[first:last]
    x = torch.randn(40, D, generator=generator, dtype=torch.float64)
    targets = torch.randint(C, (40,), generator=generator)
    torch.testing.assert_close(layer.nats(x, targets, weight), -theirs(x, targets).output)
    torch.testing.assert_close(layer(x, weight), theirs.log_prob(x))


def test_losses_are_those_of_all_probabilities(softmax, generator):
    layer, weight = softmax
    x = torch.randn(3, 20, D, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(C, (3, 20), generator=generator)
    log_p = layer(x, weight)
    torch.testing.assert_close(log_p.exp().sum(-1), torch.ones(3, 20, dtype=torch.float64))
    want = -log_p.gather(-1, targets[..., None]).squeeze(-1)
    got = layer.nats(x, targets, weight)
    torch.testing.assert_close(got, want)
    leaves = [x, weight, *layer.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad(got.sum(), leaves), torch.autograd.grad(want.sum(), leaves)
    )


@pytest.mark.parametrize("targets", [[0, 4], [9, 16], [22, 0]])
def test_clusters_without_targets(softmax, targets):
    layer, weight = softmax
    x = torch.ones(2, D, dtype=torch.float64)
    targets = torch.tensor(targets)
    want = -layer(x, weight).gather(-1, targets[:, None]).squeeze(-1)
    torch.testing.assert_close(layer.nats(x, targets, weight), want)


@pytest.mark.parametrize("cutoffs", [(), (0, 5), (5, 5), (9, 5), (5, 23)])
def test_cutoffs_ascend(cutoffs):
    with pytest.raises(ValueError, match="adaptive_cutoffs must ascend between 0 and the 23"):
        AdaptiveSoftmax(D, C, cutoffs)
