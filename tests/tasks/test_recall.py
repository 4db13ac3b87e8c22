"""Multi-query associative recall: what is asked, and the answers by a dictionary."""

import pytest
import torch

from fastweights.tasks.recall import Recall, draw_recall

SIZES = [(4, 1, 4), (64, 8, 64), (50, 12, 26), (37, 3, 9), (2048, 256, 8192)]
REWRITTEN = [(6, 1, 6, 2), (64, 8, 64, 2), (37, 3, 20, 3)]


def draw(
    length: int,
    num_keys: int,
    vocab_size: int,
    writes_per_key: int = 1,
    sequences: int = 5,
    seed: int = 1,
) -> Recall:
    generator = torch.Generator().manual_seed(seed)
    return draw_recall(
        sequences, length, num_keys, vocab_size, generator, writes_per_key=writes_per_key
    )


@pytest.mark.parametrize(
    ("length", "num_keys", "vocab_size", "writes"), [*((*sizes, 1) for sizes in SIZES), *REWRITTEN]
)
def test_answers_by_a_dictionary(length: int, num_keys: int, vocab_size: int, writes: int) -> None:
    """Written in order, the last value of a key counts; every key is asked once."""
    drawn = draw(length, num_keys, vocab_size, writes)
    num_pairs = writes * num_keys
    assert drawn.inputs.shape == drawn.asked.shape == (5, length)
    assert int(drawn.inputs.min()) >= 0 and int(drawn.inputs.max()) < vocab_size
    answers = drawn.targets.tolist()
    for tokens, asked in zip(drawn.inputs.tolist(), drawn.asked.tolist(), strict=True):
        stored = {}
        for i in range(0, 2 * num_pairs, 2):
            stored[tokens[i]] = tokens[i + 1]
        assert len(stored) == num_keys
        assert all(tokens[: 2 * num_pairs : 2].count(key) == writes for key in stored)
        assert len(set(tokens[1 : 2 * num_pairs : 2])) == num_pairs
        assert all(0 < key < vocab_size // 2 <= value for key, value in stored.items())
        assert not any(asked[: 2 * num_pairs])
        places = [t for t in range(length) if asked[t]]
        assert all((t - 2 * num_pairs) % 2 == 0 for t in places)
        assert [answers.pop(0) for _ in places] == [stored.pop(tokens[t]) for t in places]
        assert not stored
    assert not answers


def test_the_order_of_the_pairs_is_even() -> None:
    """Of two writes of the first key, each place is as likely."""
    drawn = draw(12, 2, 64, 2, sequences=2000)
    first = (drawn.inputs[:, 0:8:2] == drawn.inputs[:, :1]).double()
    assert first.mean(0)[1:].tolist() == pytest.approx([1 / 3] * 3, abs=0.04)


def test_filler() -> None:
    """The same sequences but for the filler: token 0, or any token as often as another."""
    sizes = 500, 40, 4, 10, torch.Generator().manual_seed(1)
    drawn = draw_recall(*sizes)
    sizes[-1].manual_seed(1)
    silent = draw_recall(*sizes, random_filler=False)
    assert torch.equal(drawn.asked, silent.asked) and torch.equal(drawn.targets, silent.targets)
    filler = ~drawn.asked
    filler[:, :8] = False
    assert not silent.inputs[filler].any()
    assert torch.equal(silent.inputs[~filler], drawn.inputs[~filler])
    share = drawn.inputs[filler].bincount(minlength=10) / filler.sum()
    torch.testing.assert_close(share, torch.full((10,), 0.1), atol=0.01, rtol=0)


def test_the_gaps_follow_the_power_law() -> None:
    """The first key's gap g with a probability proportional to (g + 1)^(a - 1)."""
    gaps = (draw(42, 1, 4, sequences=20_000).asked.to(torch.uint8).argmax(1) - 2) // 2
    want = torch.arange(1, 21) ** -0.99
    found = gaps.bincount(minlength=20) / len(gaps)
    torch.testing.assert_close(found, want / want.sum(), atol=0.01, rtol=0)


def test_gaps_without_replacement_are_drawn_one_after_another() -> None:
    """The second key's gap, given the first one's, has the same weights without that gap."""
    drawn = draw(12, 2, 6, sequences=40_000)  # gaps 0 .. 3
    first = (drawn.inputs[:, 4::2] == drawn.inputs[:, :1]) & drawn.asked[:, 4::2]
    second = (drawn.inputs[:, 4::2] == drawn.inputs[:, 2:3]) & drawn.asked[:, 4::2]
    weights = torch.arange(1, 5) ** -0.99
    for gap in range(4):
        found = second[first[:, gap]].float().mean(0)
        rest = weights.clone()
        rest[gap] = 0
        torch.testing.assert_close(found, rest / rest.sum(), atol=0.03, rtol=0)


def test_every_key_and_value_is_drawn_alike() -> None:
    drawn = draw(8, 2, 12, sequences=20_000)
    keys, values = drawn.inputs[:, 0:4:2], drawn.inputs[:, 1:4:2]
    for tokens, first, count in ((keys, 1, 5), (values, 6, 6)):
        share = tokens.flatten().bincount(minlength=12)[first : first + count] / tokens.numel()
        torch.testing.assert_close(share, torch.full((count,), 1 / count), atol=0.01, rtol=0)


def test_the_same_generator_draws_the_same_and_no_other_is_used() -> None:
    before = torch.get_rng_state()
    first, second, other = draw(64, 8, 64), draw(64, 8, 64), draw(64, 8, 64, seed=2)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first.inputs, other.inputs)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((64, 0, 64), "num_keys must be >= 1, got 0"),
        ((31, 8, 64), "length 31 is too short for 8 pairs and their queries, which need 32"),
        ((64, 8, 17), "vocab_size 17 has 7 keys, 8 pairs need vocab_size 18"),
        ((47, 8, 64, 2), "length 47 is too short for 16 pairs and their queries, which need 48"),
        ((64, 8, 33, 2), "vocab_size 33 has 15 keys, 16 pairs need vocab_size 34"),
        ((64, 8, 64, 0), "writes_per_key must be >= 1, got 0"),
        ((64, 8, 0), "vocab_size 0 has 0 keys, 8 pairs need vocab_size 18"),
    ],
)
def test_sizes_that_do_not_fit(sizes: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw(*sizes)
