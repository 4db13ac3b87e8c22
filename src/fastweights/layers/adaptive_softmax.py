"""The softmax over a large vocabulary whose words stand in the order of their frequency."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import linear as affine

from fastweights.layers.initialization import linear
from fastweights.ops.cross_entropy import cross_entropy


class AdaptiveSoftmax(nn.Module):
    """Adaptive softmax (Grave et al., 2017) with the embeddings as its weights, as in
    Transformer-XL's word models: a first softmax over the frequent words and one class for each
    cluster of others, and a second one inside the cluster.

    `torch.nn.AdaptiveLogSoftmaxWithLoss` has weights of its own, and in every cluster a further
    matrix and no bias. With the identity there, it is this one.

    Args:
        dim: D.
        num_classes: C, ordered by frequency.
        cutoffs: the first word of each cluster, ascending.
        generator: of the initial weights; PyTorch's default one if None.
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        cutoffs: Sequence[int],
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        edges = [0, *cutoffs, num_classes]
        if not cutoffs or any(first >= last for first, last in pairwise(edges)):
            raise ValueError(
                f"adaptive_cutoffs must ascend between 0 and the {num_classes} classes, got "
                f"{list(cutoffs)}"
            )
        self.edges = edges
        self.clusters = linear(dim, len(cutoffs), bias=True, generator=generator)
        self.bias = nn.Parameter(torch.zeros(num_classes))

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """log p of every class: x `[..., D]`, weight `[C, D]` -> `[..., C]`."""
        head = self._head(x, weight).log_softmax(-1)
        words, clusters = head[..., : self.edges[1]], head[..., self.edges[1] :]
        tails = [
            self._scores(x, weight, tail).log_softmax(-1) + clusters[..., tail - 1, None]
            for tail in range(1, len(self.edges) - 1)
        ]
        return torch.cat([words, *tails], -1)

    def nats(self, x: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
        """-log p(target): x `[..., D]`, targets `[...]` -> `[...]`, in float32 at least. Only the
        scores of the clusters in which there are targets are computed, and only for these."""
        x, flat = x.flatten(0, -2), targets.flatten()
        cutoffs = torch.tensor(self.edges[1:-1], device=targets.device)
        cluster = torch.bucketize(flat, cutoffs, right=True)  # 0: a frequent word
        in_head = torch.where(cluster == 0, flat, self.edges[1] - 1 + cluster)
        nats = cross_entropy(self._head(x, weight), in_head)
        for tail, first in enumerate(self.edges[1:-1], start=1):
            rows = (cluster == tail).nonzero().squeeze(-1)
            scores = self._scores(x[rows], weight, tail)
            nats = nats.index_add(0, rows, cross_entropy(scores, flat[rows] - first))
        return nats.view(targets.shape)

    def _head(self, x: Tensor, weight: Tensor) -> Tensor:
        return torch.cat([self._scores(x, weight, 0), self.clusters(x)], -1)

    def _scores(self, x: Tensor, weight: Tensor, part: int) -> Tensor:
        words = slice(self.edges[part], self.edges[part + 1])
        return affine(x, weight[words], self.bias[words])
