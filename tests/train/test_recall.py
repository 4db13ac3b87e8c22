"""A recall run: its batches, what its evaluation counts, resume, what it learns."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fastweights.cli.train import split_scores, summary
from fastweights.models.sequence_model import SequenceModel
from fastweights.tasks.recall import draw_recall
from fastweights.train import recall as recall_problem
from fastweights.train.config import ConfigError, RunConfig, merge, parse_config
from fastweights.train.data import generator_for
from fastweights.train.loop import train
from fastweights.train.recall import RecallProblem
from tests.train.interrupt import train_in_parts

TINY: dict[str, Any] = {
    "task": {
        "kind": "recall",
        "vocab_size": 16,
        "tokens_per_key": 4,
        "lengths": [4, 8],
        "test_lengths": [4, 8, 12],
    },
    "model": {"dim": 16, "ff_dim": 16},
    "training": {"lr": 1e-2},
    "device": "cpu",
    "num_threads": 1,
}


def config(**values: object) -> RunConfig:
    return parse_config(merge(TINY, values))


def problem(**values: object) -> RecallProblem:
    return RecallProblem(config(**values).resolved(), torch.device("cpu"))


@pytest.fixture(autouse=True)
def few_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations of a tenth of a second."""
    monkeypatch.setattr(recall_problem, "EVALUATION_TOKENS", 512)
    monkeypatch.setattr(recall_problem, "TOKENS_A_PASS", 128)


def test_defaults() -> None:
    resolved = parse_config({"task": {"kind": "recall"}, "model": {"layer": "srwm"}}).resolved()
    task, model = resolved.task, resolved.model
    assert (task.vocab_size, task.lengths, task.num_keys(256)) == (8192, (64, 128, 256), 32)
    assert task.test_lengths == (64, 128, 256, 512, 1024, 2048)
    assert (model.layer, model.num_layers, model.convolution_size) == ("srwm", 2, 4)
    assert resolved.horizon_lengths == ()
    assert parse_config(resolved.model_dump(mode="json")).resolved() == resolved


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"tokens_per_key": 3}, "task.tokens_per_key: must be >= 4, got 3"),
        ({"lengths": [8, 4]}, r"task.lengths: must be ascending without repeats, got \(8, 4\)"),
        ({"test_lengths": [8, 8]}, r"task.test_lengths: must be ascending without repeats, got"),
        ({"lengths": [3]}, "task.lengths: 3 is too short for a key, with tokens_per_key 4"),
        ({"writes_per_key": 2}, "task.tokens_per_key: 2 writes and a query need 6, got 4"),
        ({"vocab_size": 7}, "task.vocab_size: 3 pairs of different keys need 8, got 7"),
        ({"test_lengths": [32]}, "task.vocab_size: 8 pairs of different keys need 18, got 16"),
        ({"vocab": 7}, "task.vocab: unknown key; did you mean 'vocab_size'"),
    ],
)
def test_values_that_do_not_fit(task: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        config(task=task)
    assert len(raised.value.lines) == 1


def test_other_models_and_protocols_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.kind: task recall needs 'sequence'"):
        config(model={"kind": "associative_memory"})
    with pytest.raises(ConfigError, match="protocol: task recall knows 'strict' alone"):
        config(protocol="published")


def test_batches_follow_the_step_with_a_constant_number_of_tokens() -> None:
    """And the loss is that of the queries alone, over every token."""
    learned = problem(training={"batch_size": 6})
    model = learned.build_model()
    for step, length in ((0, 4), (1, 8), (2, 4)):
        got = learned.training_loss(model, step)
        again = problem(training={"batch_size": 6}).training_loss(model, step)
        torch.testing.assert_close(got.loss, again.loss, rtol=0, atol=0)
        drawn = draw_recall(24 // length, length, length // 4, 16, generator_for(1, "recall", step))
        assert got.num_tokens == drawn.inputs.numel() == 24
        chosen = model(drawn.inputs).logits[drawn.asked].log_softmax(-1)
        want = -chosen.gather(1, drawn.targets[:, None]).mean()
        torch.testing.assert_close(got.loss, want)


def test_the_filler_is_what_the_task_says() -> None:
    for random_filler in (True, False):
        task = {**TINY["task"], "lengths": [64], "tokens_per_key": 16, "test_lengths": [64]}
        learned = problem(task={**task, "random_filler": random_filler})
        seen: list[torch.Tensor] = []
        model = learned.build_model()
        model.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0]))
        learned.training_loss(model, 0)
        learned.evaluate(model, 0)
        assert all(((tokens == 0).float().mean() > 0.5) != random_filler for tokens in seen)


def test_evaluation_counts_every_query() -> None:
    """By one sequence at a time; validation is the same at every step, the test is of others."""
    learned = problem()
    model = learned.build_model().eval()
    assert isinstance(model, SequenceModel)
    (scores,) = learned.evaluate(model, 1).values()
    assert scores == learned.evaluate(model, 2)["validation"]
    right, nats = [], []
    for length in (4, 8):
        generator = generator_for(1, "recall validation", length)
        for _ in range(4):
            drawn = draw_recall(128 // length, length, length // 4, 16, generator)
            targets = drawn.targets.tolist()
            for tokens, asked in zip(drawn.inputs, drawn.asked, strict=True):
                logits = model(tokens[None]).logits[0]
                for t in asked.nonzero().flatten().tolist():
                    target = targets.pop(0)
                    right.append(int(logits[t].argmax()) == target)
                    nats.append(-logits[t].log_softmax(-1)[target].item())
    assert scores["num_queries"] == len(right) == 256
    assert scores["accuracy"] == sum(right) / len(right)
    assert scores["nats_per_query"] == pytest.approx(sum(nats) / len(nats), rel=1e-5)
    by_length = learned.conclude(model, 3)["by_length"]
    assert by_length["lengths"] == [4, 8, 12]
    assert by_length["num_queries"] == [128, 128, 4 * 10 * 3]


def test_an_output_that_is_no_number_is_not_right() -> None:
    learned = problem()
    model = learned.build_model()
    model.embedding.weight.data.fill_(torch.nan)
    (scores,) = learned.evaluate(model, 1).values()
    assert (scores["accuracy"], scores["nats_per_query"]) == (0.0, None)
    assert model.training


def test_it_learns_to_recall(tmp_path: Path) -> None:
    """Every query of the training lengths, in seconds."""
    run = config(training={"max_steps": 1000, "evaluate_every": 50, "stop_loss": 0.05})
    result = train(run, tmp_path / "run", progress=False)
    assert result["splits"]["validation"]["accuracy"] > 0.97
    assert result["by_length"]["accuracy"][0] > 0.97
    assert result["by_length"]["threshold"] == 0.99


def test_what_the_summary_says() -> None:
    result = {
        "steps": 5,
        "wall_s": 1.0,
        "stopped_because": "max_steps",
        "selected_step": 5,
        "splits": {"validation": {"accuracy": 0.5}},
        "by_length": {
            "lengths": [4, 8],
            "accuracy": [1.0, 0.25],
            "threshold": 0.99,
            "longest_length": 4,
        },
    }
    assert split_scores(result) == ["validation 50.00 %", "length 4 100.00 %", "length 8 25.00 %"]
    last = summary(result, Path("run"))[-1]
    assert last == "horizon: 4 (longest length with accuracy >= 99 %, of up to 8)"


def test_resumed_equals_uninterrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = {"max_steps": 30, "evaluate_every": 10, "checkpoint_every": 10}
    run = config(training=training, model={"dropout": 0.1})
    want = train(run, tmp_path / "whole", progress=False)
    got = train_in_parts(run, tmp_path / "parts", monkeypatch, step=15)
    for name in ("splits", "by_length", "steps", "selected_step"):
        assert got[name] == want[name]
