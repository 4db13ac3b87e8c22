"""The smallest true run: parity is learnt, generalises to longer strings, and the counterexample
does not learn it.

T8 of docs/theory.md: Recurrent Delta and SRWM are non-linear recurrent networks.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from fastweights.evaluate import load_run
from fastweights.experiments.formal_languages import FORMAL_LANGUAGES
from fastweights.train.loop import train


def run(model: str, folder: Path) -> dict[str, Any]:
    """One run of the grid, as the study does it, with a short horizon."""
    overrides = {
        "training": {"max_steps": 1500},
        "horizon_lengths": [100, 200],
        "num_threads": 1,
    }
    (cell,) = FORMAL_LANGUAGES.cells(["parity"], [model], [1], overrides)
    return train(cell.config, folder, progress=False)


@pytest.mark.parametrize(
    ("model", "horizon"),
    [("recurrent_delta_net", 200), ("srwm", 100), ("delta_net_0_2", 200), ("lstm", 200)],
)
def test_learns_parity_and_generalises(model, horizon, tmp_path):
    result = run(model, tmp_path)
    assert result["splits"]["bin0"]["sequence_accuracy"] == 1.0
    assert result["splits"]["bin1"]["sequence_accuracy"] == 1.0
    assert result["horizon"]["longest_length"] >= horizon
    if model == "delta_net_0_2":
        assert eigenvalues(tmp_path).min() < -0.9  # T10
    if model == "recurrent_delta_net":
        same, other = state_on_ones(tmp_path, 400)
        assert same < 2e-3 * other  # period 2, eight times beyond the longest training string
    if model == "srwm":
        same, other = state_on_ones(tmp_path, 40)
        assert same < 0.2 * other  # but other shrinks with t: its horizon is finite


def state_on_ones(run_folder: Path, time: int) -> tuple[float, float]:
    """How far the layer's state moves in two steps, and in one, after `time` ones (T8)."""
    loaded = load_run(run_folder)
    one = torch.full((1, 1), loaded.symbols.index("1"))
    state, states = None, []
    with torch.no_grad():
        for _ in range(time + 2):
            state = loaded.model(one, state).state
            states.append(torch.cat([part.flatten() for part in state[0]]))
    now, next_, after_next = states[-3:]
    return (after_next - now).norm().item(), (next_ - now).norm().item()


def test_delta_net_with_write_strength_below_one_does_not(tmp_path):
    """T5 in practice, with the steps that the others get."""
    result = run("delta_net", tmp_path)
    assert result["splits"]["bin0"]["sequence_accuracy"] < 0.5
    assert result["splits"]["bin1"]["sequence_accuracy"] == 0.0
    assert eigenvalues(tmp_path).min() > 0


def eigenvalues(run_folder: Path) -> torch.Tensor:
    """Of the transition I - beta k k^T along k, of each symbol and head of a trained DeltaNet."""
    loaded = load_run(run_folder)
    model: Any = loaded.model
    block = model.blocks[0]
    layer = block.layer
    with torch.no_grad():
        x = block.layer_norm(model.embedding.weight[: len(loaded.symbols)])
        heads = layer.input_projection(x).unflatten(-1, (layer.num_heads, -1))
        _, key, _, beta = heads.split([layer.head_dim] * 3 + [1], -1)
        strength = layer.max_write_strength * beta[..., 0].sigmoid()
        return 1 - strength * layer.feature_map(key).square().sum(-1)
