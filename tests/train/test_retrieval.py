"""A retrieval run: published and strict evaluation, resume, what it learns."""

from pathlib import Path

import pytest
import torch

from fastweights.tasks.retrieval import ask_all, draw_pairs
from fastweights.train.config import ConfigError, RunConfig, parse_config
from fastweights.train.data import generator_for
from fastweights.train.loop import train
from fastweights.train.retrieval import PUBLISHED_CHUNK, RetrievalProblem, _mean_of_chunks
from tests.train.interrupt import train_in_parts


def config(**values: object) -> RunConfig:
    task = {"kind": "retrieval", "num_keys": 12, **values.pop("task", {})}  # type: ignore[dict-item]
    return parse_config({"task": task, "device": "cpu", "num_threads": 1, **values})


def test_defaults_are_the_published_ones() -> None:
    resolved = config(protocol="published").resolved()
    training, model = resolved.training, resolved.model
    assert (training.lr, training.batch_size, training.max_steps) == (1e-3, 32, 100_000)
    assert (training.betas, training.eps, training.patience) == ((0.9, 0.999), 1e-8, 11)
    assert (training.evaluate_every, training.max_epochs) == (100, None)
    assert (model.rule, model.feature_normalization, model.attention_normalizer) == (
        "delta",
        "sum",
        False,
    )
    assert resolved.horizon_lengths == ()
    assert parse_config(resolved.model_dump(mode="json")).resolved() == resolved


def test_a_sequence_model_cannot_retrieve() -> None:
    with pytest.raises(ConfigError, match=r"model\.kind: task retrieval needs 'assoc"):
        config(model={"kind": "sequence"})
    with pytest.raises(ConfigError, match=r"model\.kind: task formal_language needs 'seq"):
        parse_config({"model": {"kind": "associative_memory"}, "task": {"language": "parity"}})


@pytest.mark.parametrize("variant", ["published", "strict"])
def test_evaluation(variant: str) -> None:
    """By one query at a time, from the definition."""
    task = {"num_keys": 40, "replacement": True}
    problem = RetrievalProblem(config(task=task, protocol=variant).resolved(), torch.device("cpu"))
    model = problem.build_model()
    (scores,) = problem.evaluate(model, 100).values()
    number = 100 if variant == "published" else 0
    length = 40 if variant == "published" else 80
    generator = generator_for(1, "retrieval evaluation", number)
    asked = ask_all(*draw_pairs(20, 40, length, True, generator), 40)
    means, errors = [], []
    for b in range(20):
        mine = []
        for query, target, counted in zip(
            asked.queries[b], asked.targets[b], asked.counted[b], strict=True
        ):
            if counted:
                read = model(asked.keys[b : b + 1], asked.values[b : b + 1], query[None, None])
                error = read[0, 0].clone()
                error[target] -= 1
                mine.append(0.5 * error.square().sum().item())
        means += [
            sum(mine[i : i + PUBLISHED_CHUNK]) / len(mine[i : i + PUBLISHED_CHUNK])
            for i in range(0, len(mine), PUBLISHED_CHUNK)
        ]
        errors += mine
    want = means if variant == "published" else errors
    assert scores["squared_error"] == pytest.approx(sum(want) / len(want), rel=1e-5)
    assert scores["num_queries"] == len(errors)


def test_published_evaluations_are_of_new_sequences_strict_ones_of_the_same() -> None:
    for variant, same in (("published", False), ("strict", True)):
        problem = RetrievalProblem(config(protocol=variant).resolved(), torch.device("cpu"))
        model = problem.build_model()
        assert (problem.evaluate(model, 1) == problem.evaluate(model, 2)) is same


def test_a_mean_of_means() -> None:
    errors, counted = torch.zeros(1, 40), torch.ones(1, 40, dtype=torch.bool)
    errors[0, 32:] = 1.0  # 8 queries in the second chunk count as much as 32 in the first
    assert _mean_of_chunks(errors, counted) == 0.5
    assert _mean_of_chunks(errors, counted & (torch.arange(40) < 32)) == 0.0


@pytest.mark.parametrize("protocol", ["published", "strict"])
def test_it_learns_twelve_keys(tmp_path: Path, protocol: str) -> None:
    result = train(config(protocol=protocol), tmp_path / "run", progress=False)
    assert result["stopped_because"] == "squared_error below 0.001"
    assert result["steps"] <= 1500
    (scores,) = result["splits"].values()
    assert scores["squared_error"] < 0.002 and scores["accuracy"] == 1.0
    assert result["selection"] == ("last" if protocol == "published" else "validation")


def test_resumed_equals_uninterrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also FAVOR+'s directions, which every forward pass draws anew."""
    training = {"max_steps": 40, "evaluate_every": 10, "checkpoint_every": 10}
    favor = {"feature_map": "favor", "num_random_features": 8, "rule": "sum"}
    run = config(training=training, model=favor, protocol="published")
    want = train(run, tmp_path / "whole", progress=False)
    got = train_in_parts(run, tmp_path / "parts", monkeypatch, step=15)
    assert got["splits"] == want["splits"] and got["steps"] == want["steps"] == 40
