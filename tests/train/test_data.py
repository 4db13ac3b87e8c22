"""Batches keyed by step."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from fastweights.tasks.formal.encode import encode
from fastweights.train.config import RunConfig
from fastweights.train.data import IGNORED, TrainingBatches, generator_for, load_run_task
from fastweights.train.run_model import build_run_model

CPU = torch.device("cpu")


def test_an_epoch_serves_every_string_once(make_config: Callable[..., RunConfig]) -> None:
    task = load_run_task(make_config())
    batches = TrainingBatches(task, batch_size=12, seed=1, device=CPU)
    assert batches.steps_per_epoch == 4  # 40 strings: 12, 12, 12, 4
    orders = []
    for epoch in range(2):
        served = []
        for i in range(4):
            batch = batches.batch(4 * epoch + i)
            for row, targets in zip(batch.inputs, batch.targets, strict=True):
                served.append(tuple(row[targets != IGNORED].tolist()))
        orders.append(served)
    inputs, _, mask = encode(task.splits["train"], task.symbols, task.labels)
    want = sorted(tuple(row[kept].tolist()) for row, kept in zip(inputs, mask, strict=True))
    assert sorted(orders[0]) == sorted(orders[1]) == want
    assert orders[0] != orders[1]


def test_a_batch_depends_on_seed_and_step_alone(make_config: Callable[..., RunConfig]) -> None:
    task = load_run_task(make_config())
    forward = TrainingBatches(task, 8, 1, CPU)
    one_by_one = [forward.batch(step) for step in range(11)]
    other = TrainingBatches(task, 8, 1, CPU)
    for step in (10, 0, 7):
        torch.testing.assert_close(other.batch(step).inputs, one_by_one[step].inputs)
    third = TrainingBatches(task, 8, 2, CPU)
    assert any(
        not torch.equal(third.batch(step).inputs, one_by_one[step].inputs) for step in range(5)
    )


def test_cutting_a_batch_to_its_longest_changes_nothing(
    make_config: Callable[..., RunConfig],
) -> None:
    config = make_config(precision="64-true")
    task = load_run_task(config)
    model = build_run_model(config, task).double()
    batch = TrainingBatches(task, 8, 1, CPU).batch(0)
    T = batch.inputs.shape[1]
    assert (batch.targets[:, -1] != IGNORED).any()
    assert batch.num_tokens == int((batch.targets != IGNORED).sum())
    padding = len(task.symbols)
    losses, gradients = [], []
    for inputs, targets in (
        (batch.inputs, batch.targets),
        (F.pad(batch.inputs, (0, 7), value=padding), F.pad(batch.targets, (0, 7), value=IGNORED)),
    ):
        assert inputs.shape[1] in (T, T + 7)
        logits = model(inputs).logits
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
        losses.append(loss.detach())
        gradients.append(torch.autograd.grad(loss, list(model.parameters())))
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_purposes_share_no_stream() -> None:
    draws = {
        (purpose, number): torch.randint(
            2**62, (4,), generator=generator_for(1, purpose, number)
        ).tolist()
        for purpose in ("model", "order")
        for number in (0, 1)
    }
    assert len({tuple(draw) for draw in draws.values()}) == 4
    again = torch.randint(2**62, (4,), generator=generator_for(1, "model", 0)).tolist()
    assert draws["model", 0] == again
