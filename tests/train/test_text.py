"""A language-modelling run: its batches, what its evaluation counts, what it learns."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from fastweights.cli.train import split_scores
from fastweights.tasks.text.corpus import load_corpus
from fastweights.tasks.text.prepared import prepare
from fastweights.tasks.text.source import local_source
from fastweights.tasks.text.tokenizer import load_tokenizer
from fastweights.train import text as text_problem
from fastweights.train.config import ConfigError, RunConfig, merge, parse_config
from fastweights.train.loop import train
from fastweights.train.run_model import model_sizes
from fastweights.train.text import TextProblem

LENGTH, LANES = 8, 4


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Thirty documents that repeat four letters."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for i in range(30):
        (folder / f"{i}.txt").write_text("abcd" * (20 + i), encoding="utf-8")
    return folder


def config(corpus: Path, **values: Any) -> RunConfig:
    tiny = {
        "task": {"kind": "text", "text": str(corpus), "context_length": LENGTH},
        "model": {"layer": "delta_net", "dim": 16, "num_layers": 1, "ff_dim": 16},
        "training": {"batch_size": LANES, "max_steps": 60, "evaluate_every": 30, "lr": 1e-2},
        "device": "cpu",
        "num_threads": 1,
    }
    return parse_config(merge(tiny, values))


def problem(corpus: Path, **values: Any) -> TextProblem:
    return TextProblem(config(corpus, **values).resolved(), torch.device("cpu"))


class Recorder(torch.nn.Module):
    """Keeps what it is asked; every byte is as likely."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[torch.Tensor] = []

    def forward(self, inputs: torch.Tensor) -> Any:
        from fastweights.models.sequence_model import SequenceOutput

        self.inputs.append(inputs)
        return SequenceOutput(torch.zeros(*inputs.shape, 256), (), torch.zeros(()))


def test_a_step_takes_the_next_segment_of_every_lane(corpus):
    found = problem(corpus)
    tokens = load_corpus(str(corpus)).splits["train"]
    size = len(tokens) // LANES
    model = Recorder()
    for step in range(found.segments + 1):
        found.training_loss(model, step)
    lanes = torch.cat(model.inputs[:-1], 1)
    want = torch.stack([tokens[i * size : i * size + lanes.shape[1]] for i in range(LANES)])
    assert torch.equal(lanes, want.long())
    assert lanes.shape[1] + LENGTH >= size - 1
    assert torch.equal(model.inputs[-1], model.inputs[0])
    assert found.epoch(found.segments) == 1


def test_every_byte_counts_once(corpus, monkeypatch):
    monkeypatch.setattr(text_problem, "TOKENS_A_PASS", 5 * LENGTH)  # a pass that is not full
    found = problem(corpus)
    model = found.build_model().eval()
    text = found.held_out["test"].long()
    scores = found.conclude(model, 0)["splits"]["test"]
    nats = [
        F.cross_entropy(
            model(text[None, start : start + LENGTH]).logits[0],
            text[start + 1 : start + LENGTH + 1],
            reduction="sum",
        ).item()
        for start in range(0, len(text) - LENGTH, LENGTH)
    ]
    assert scores["num_tokens"] == len(nats) * LENGTH
    assert scores["nats_per_token"] == pytest.approx(sum(nats) / scores["num_tokens"], rel=1e-6)
    assert scores["bits_per_byte"] == pytest.approx(scores["nats_per_token"] / math.log(2))
    assert found.evaluate(Recorder(), 0)["validation"]["bits_per_byte"] == pytest.approx(8)


def test_sub_words_count_their_bytes(corpus, tmp_path):
    """Bits per byte are those of the whole text, perplexity that of a token."""
    for i in range(30):
        (corpus / f"{i}.txt").write_text("a bc def\n" * (20 + i), encoding="utf-8")
    out = tmp_path / "prepared"
    prepare(local_source(str(corpus)), out, "words")
    found = problem(out)
    assert found.vocab_size == 5  # with <eos> and <unk>
    model = found.build_model().eval()
    scores = found.conclude(model, 0)["splits"]["test"]
    held_out = load_corpus(str(out))
    tokens_per_byte = len(held_out.splits["test"]) / held_out.num_bytes["test"]
    nats = scores["nats_per_token"]
    assert scores["bits_per_byte"] == pytest.approx(nats * tokens_per_byte / math.log(2))
    assert scores["perplexity"] == pytest.approx(math.exp(nats))
    assert model_sizes(config(out)) == (5, 5)
    found.describe(tmp_path)
    assert load_tokenizer(tmp_path).vocab_size == 5


def test_it_learns_and_tells(corpus, tmp_path):
    result = train(config(corpus), tmp_path / "run", progress=False)
    assert result["splits"]["test"]["bits_per_byte"] < 1.0  # without context: 2
    assert (
        split_scores(result)[1].startswith("test 0.") and "bits per byte" in split_scores(result)[1]
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"task": {"text": "nowhere"}}, "text: nowhere: no such file or folder"),
        ({"task": {"context_length": 10**6}}, "too short for 4 sequences of 1000000 tokens: "),
        ({"training": {"batch_size": 10**6}}, "too short for 1000000 sequences of 8 tokens: "),
    ],
)
def test_text_that_cannot_be_used(corpus, values, message):
    with pytest.raises(ConfigError, match=message):
        problem(corpus, **values)


def test_protocol_published(corpus):
    with pytest.raises(ConfigError, match="task text knows 'strict' alone, got 'published'"):
        config(corpus, protocol="published")
