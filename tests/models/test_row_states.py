"""A batch whose rows have different numbers of tokens equals every row by itself."""

import pytest
import torch
from torch.utils._pytree import tree_leaves

from fastweights.models.menu import SEQUENCE_LAYERS, build_model
from fastweights.models.row_states import RowStates
from fastweights.models.sequence_model import SequenceModel
from fastweights.train.config import SequenceModelConfig

VOCABULARY, B = 7, 4


@pytest.fixture(params=SEQUENCE_LAYERS)
def model(request: pytest.FixtureRequest, generator: torch.Generator) -> SequenceModel:
    config = SequenceModelConfig(layer=request.param, dim=8, num_layers=2, convolution_size=2)
    return build_model(config, VOCABULARY, VOCABULARY, generator).double().eval()


@torch.no_grad()
def test_every_row_by_itself(model, generator):
    states, history = RowStates(), [torch.empty(0, dtype=torch.int64) for _ in range(B)]
    for T in (6, 1, 4, 1):
        inputs = torch.randint(VOCABULARY, (B, T), generator=generator)
        mask = torch.rand(B, T, generator=generator) < 0.6
        mask[0], mask[1] = True, False  # a row that is full, and one without a token
        mask[1, -1] = T > 1
        at = torch.rand(B, T, generator=generator) < 0.5
        scores = states.run(model, inputs, mask, at)
        want = []
        for row in range(B):
            seen = len(history[row])
            history[row] = torch.cat([history[row], inputs[row][mask[row]]])
            if len(history[row]):
                logits = model(history[row][None]).logits[0, seen:]
                want.append(logits[at[row][mask[row]]])
        torch.testing.assert_close(scores, torch.cat(want))
        order = torch.randint(B, (B,), generator=generator).tolist()
        states.select(order)
        history = [history[row] for row in order]
        assert sorted(row for group in states.groups for row in group.rows) == list(range(B))


@torch.no_grad()
def test_states_that_do_not_grow_run_together(generator):
    model = build_model(SequenceModelConfig(dim=8), VOCABULARY, VOCABULARY, generator).eval()
    states, inputs = RowStates(), torch.zeros(3, 5, dtype=torch.int64)
    mask = torch.tensor([[0, 0, 0, 1, 1], [1, 1, 1, 1, 1], [0, 1, 1, 1, 1]]).bool()
    states.run(model, inputs, mask, mask)
    (group,) = states.groups
    assert group.rows == [0, 1, 2]
    assert {len(x) for x in tree_leaves(group.state)} == {3}


@torch.no_grad()
def test_another_number_of_rows(model):
    states, inputs = RowStates(), torch.zeros(2, 3, dtype=torch.int64)
    every = torch.ones(3, 3, dtype=torch.bool)
    states.run(model, inputs, every[:2], every[:2])
    with pytest.raises(ValueError, match="inputs have 3 rows, the states 2"):
        states.run(model, inputs.new_zeros(3, 3), every, every)


def test_no_token_at_all(model):
    inputs = torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"mask \[2, 3\]: no row has a token"):
        RowStates().run(model, inputs, inputs.bool(), ~inputs.bool())
