"""Which experts are chosen, counted by hand."""

import json
import math

import pytest
import torch
from torch import nn

from fastweights.layers.moe import MoE
from fastweights.train.expert_usage import ExpertUsage, summary, watched_experts


def usage(*choices: tuple[int, ...], num_experts: int = 4) -> ExpertUsage:
    found = ExpertUsage(num_experts)
    for choice in choices:
        found.count(torch.tensor([choice]))
    return found


def test_counts_by_hand():
    found = usage((0, 1), (0, 2), (1, 0), (0, 1))
    assert found.num_tokens == 4
    assert found.together.tolist() == [[4, 3, 1, 0], [3, 3, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    assert found.load.tolist() == [0.5, 0.375, 0.125, 0.0]
    nats = sum(-p * math.log(p) for p in (0.5, 0.375, 0.125))
    assert found.entropy == pytest.approx(nats / math.log(4))
    assert found.num_dead == 1
    plain = json.loads(json.dumps(found.as_dict()))
    assert plain["together"][0] == [1.0, 0.75, 0.25, 0.0]


def test_all_at_once_is_one_after_the_other():
    generator = torch.Generator().manual_seed(1)
    choices = torch.rand(500, 6, generator=generator).topk(3).indices
    one, many = ExpertUsage(6), ExpertUsage(6)
    one.count(choices)
    for part in choices.split(77):
        many.count(part)
    assert torch.equal(one.together, many.together) and one.num_tokens == many.num_tokens == 500


def test_autocast_does_not_round_the_counts():
    found = ExpertUsage(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found.count(torch.zeros(1001, 1, dtype=torch.int64))
    assert found.together.tolist() == [[1001, 0], [0, 0]]


@pytest.mark.parametrize(
    ("found", "entropy", "dead"),
    [
        (usage((0,), (1,), (2,), (3,)), 1.0, 0),
        (usage((2,), (2,)), 0.0, 3),
        (usage(), 0.0, 4),
        (usage((0,), num_experts=1), 1.0, 0),
    ],
)
def test_even_single_and_no_use(found, entropy, dead):
    assert found.entropy == pytest.approx(entropy)
    assert found.num_dead == dead


def test_the_routers_of_a_model_are_watched_for_a_while():
    generator = torch.Generator().manual_seed(1)
    mixtures = [MoE(8, num_experts=4, expert_dim=4, top_k=2, generator=generator) for _ in range(2)]
    model = nn.Sequential(*mixtures)
    x = torch.randn(3, 5, 8, generator=generator)
    with watched_experts(model) as usages:
        for layer in mixtures:
            layer(x)
        mixtures[0](x)
    mixtures[0](x)  # nobody looks any more
    assert {name: found.num_tokens for name, found in usages.items()} == {"0": 30, "1": 15}
    chosen = mixtures[0].router(x.flatten(0, 1)).expert_index
    want = torch.bincount(chosen.flatten(), minlength=4)
    assert torch.equal(usages["0"].together.diagonal(), 2 * want)
    assert summary(usages)["dead_experts"] == sum(found.num_dead for found in usages.values())


def test_a_model_without_experts():
    with watched_experts(nn.Linear(2, 2)) as usages:
        pass
    assert usages == {} and summary(usages) == {}
