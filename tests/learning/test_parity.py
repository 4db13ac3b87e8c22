"""The smallest true run: parity is learnt, generalises to longer strings, and the counterexample
does not learn it.

T8 of docs/theory.md: Recurrent Delta and SRWM are non-linear recurrent networks.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from fastweights.evaluate import load_run
from fastweights.experiments.formal_languages import formal_languages
from fastweights.train.loop import train


def run(model: str, folder: Path, **training: Any) -> dict[str, Any]:
    """One run of the grid, as the study does it, with a short horizon."""
    overrides = {"training": training, "horizon_lengths": [200], "num_threads": 1}
    (cell,) = formal_languages(["parity"], [model], [1], overrides)
    return train(cell.config, folder, progress=False)


@pytest.mark.parametrize("model", ["recurrent_delta_net", "srwm", "delta_net_0_2", "lstm"])
def test_learns_parity_and_generalises(model, tmp_path):
    result = run(model, tmp_path, max_steps=1500)
    assert result["splits"]["bin0"]["sequence_accuracy"] == 1.0
    assert result["splits"]["bin1"]["sequence_accuracy"] == 1.0
    assert result["horizon"]["longest_length"] == 200
    if model in ("recurrent_delta_net", "srwm"):
        check_period_two(tmp_path)


def check_period_two(run_folder: Path) -> None:
    """T8: on 1^400, eight times the longest training string, the answers alternate for good."""
    loaded = load_run(run_folder)
    ones = torch.full((1, 400), loaded.symbols.index("1"))
    with torch.no_grad():
        probability = loaded.model(ones).logits.softmax(-1)[0]
    settled = probability[300:]
    assert (settled[2:] - settled[:-2]).norm(dim=-1).max() < 1e-2
    assert (settled[1:] - settled[:-1]).norm(dim=-1).min() > 1


def test_delta_net_with_write_strength_below_one_does_not(tmp_path):
    """T5 in practice: short training strings are fitted, longer ones are not."""
    result = run("delta_net", tmp_path, max_steps=300)
    assert result["splits"]["bin1"]["sequence_accuracy"] == 0.0
