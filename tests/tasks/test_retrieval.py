"""Pairs, queries and their answers, compared with a dictionary that is written in order."""

import pytest
import torch

from fastweights.tasks.retrieval import ask_all, ask_one, draw_pairs, train_length


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("replacement", [False, True])
def test_targets_are_the_last_values(replacement: bool) -> None:
    S = 9
    keys, values = draw_pairs(50, S, train_length(S, replacement), replacement, generator())
    for asked in (ask_one(keys, values, generator()), ask_all(keys, values, S)):
        for b in range(50):
            stored = dict(zip(keys[b].tolist(), values[b].tolist(), strict=True))
            for query, target, counted in zip(
                asked.queries[b].tolist(), asked.targets[b].tolist(), asked.counted[b], strict=True
            ):
                if counted:
                    assert stored[query] == target
            if asked.queries.shape[1] > 1:
                mine = asked.queries[b][asked.counted[b]].tolist()
                assert mine == sorted(stored)


def test_without_replacement_every_key_and_value_occurs_once() -> None:
    keys, values = draw_pairs(5, 30, 30, False, generator())
    assert (keys.sort(-1).values == torch.arange(30)).all()
    assert (values.sort(-1).values == torch.arange(30)).all()
    assert not (keys[0] == keys[1]).all() and not (keys[0] == values[0]).all()


def test_the_first_keys_only() -> None:
    keys, values = draw_pairs(4, 30, 30, False, generator())
    asked = ask_all(keys, values, 30, most=7)
    assert asked.queries.tolist() == [list(range(7))] * 4
    assert asked.counted.all()


def test_queries_of_one_are_spread_over_positions() -> None:
    keys, values = draw_pairs(2000, 5, 5, False, generator())
    counts = ask_one(keys, values, generator()).queries.flatten().bincount()
    assert counts.min() > 320 and counts.max() < 480


def test_too_few_keys() -> None:
    with pytest.raises(ValueError, match="length 6 needs as many keys, got 5"):
        draw_pairs(2, 5, 6, False, generator())
