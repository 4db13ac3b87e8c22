"""The top k of all pairs without all the pairs, beside all of them."""

import pytest
import torch
from torch import Tensor

from fastweights.ops.product_keys import product_key_top_k
from tests.ops.compare import with_gradients


def brute_force(score_a: Tensor, score_b: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Pair i is sub-key i mod A of the first half and i // A of the second."""
    A, B = score_a.shape[-1], score_b.shape[-1]
    pairs = [score_b[..., i // A] + score_a[..., i % A] for i in range(A * B)]
    return torch.stack(pairs, -1).topk(k)


def make_scores(A: int, B: int, shape: tuple[int, ...] = (3, 2)) -> list[Tensor]:
    g = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, n, generator=g, dtype=torch.float64) for n in (A, B)]


@pytest.mark.parametrize(
    ("A", "B", "k"),
    [(1, 1, 1), (5, 5, 1), (5, 5, 7), (5, 5, 25), (3, 8, 11), (8, 3, 24), (46, 46, 128)],
)
def test_equals_brute_force(A, B, k):
    scores = make_scores(A, B)
    score, index = product_key_top_k(*scores, k)
    want_score, want_index = brute_force(*scores, k)
    torch.testing.assert_close(score, want_score)
    assert torch.equal(index, want_index)
    got, want = (
        with_gradients(lambda a, b, form=form: form(a, b, k)[:1], scores)
        for form in (product_key_top_k, brute_force)
    )
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("k", [1, 3, 10])
def test_equal_scores_leave_the_largest_sums(k):
    """Which of equal pairs is chosen is open; their sums are not, and no pair comes twice."""
    g = torch.Generator().manual_seed(0)
    scores = [torch.randint(3, (50, 6), generator=g).float() for _ in range(2)]
    score, index = product_key_top_k(*scores, k)
    assert torch.equal(score, brute_force(*scores, k)[0])
    assert torch.equal(score, scores[0].gather(-1, index % 6) + scores[1].gather(-1, index // 6))
    assert all(len(row.unique()) == k for row in index)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    scores = [x.to(dtype) for x in make_scores(7, 5)]
    score, _ = product_key_top_k(*scores, 9)
    assert score.dtype == dtype
    assert torch.equal(score, brute_force(*scores, 9)[0])


def test_messages_name_the_values():
    a, b = make_scores(3, 4)
    for k in (0, 13):
        with pytest.raises(ValueError, match=rf"k must be in 1 \.\. 12 = 3 \* 4, got {k}"):
            product_key_top_k(a, b, k)
    with pytest.raises(ValueError, match=r"got \[3, 2, 3\] and \[2, 2, 4\]"):
        product_key_top_k(a, b[:2], 1)
