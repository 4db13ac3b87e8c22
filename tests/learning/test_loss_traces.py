"""Nothing moved: the first losses of every model, in float64, are the recorded ones.

`python -m tests.learning.test_loss_traces` records them anew; the commit that does so says why.
"""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from fastweights.experiments.formal_languages import FORMAL_LANGUAGES, MODELS
from fastweights.tasks.formal.language import python_random
from fastweights.tasks.formal.menu import LANGUAGES, Task
from fastweights.train.data import IGNORED, TrainingBatches
from fastweights.train.optimizer import build_optimizer
from fastweights.train.run_model import build_run_model

RECORD = Path(__file__).parents[1] / "golden" / "loss_traces.json"
STEPS = 5


def losses(model_name: str) -> list[float]:
    """Nats per token of the first steps on 64 short strings of reset Dyck-1."""
    language = LANGUAGES["reset_dyck_1"]
    random = python_random(torch.Generator().manual_seed(0))
    examples = [language.example(language.draw_of_length(20, random)) for _ in range(64)]
    task = Task(language.name, language.symbols, language.labels, {"train": examples}, language)
    (cell,) = FORMAL_LANGUAGES.cells(["reset_dyck_1"], [model_name], [1])
    model = build_run_model(cell.config, task).double()
    optimizer = build_optimizer(model.parameters(), cell.config.training)
    batches = TrainingBatches(task, 16, 1, torch.device("cpu"))
    trace = []
    for step in range(STEPS):
        batch = batches.batch(step)
        logits = model(batch.inputs).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        trace.append(loss.item())
    return trace


@pytest.mark.parametrize("model", MODELS)
def test_losses_are_the_recorded_ones(model):
    assert losses(model) == pytest.approx(json.loads(RECORD.read_text())[model], rel=1e-9)


if __name__ == "__main__":
    RECORD.write_text(json.dumps({model: losses(model) for model in MODELS}, indent=1) + "\n")
