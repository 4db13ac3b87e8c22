"""A language-modelling run: its batches, what its evaluation counts, what it learns."""

import json
import math
import unittest.mock
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch.utils._pytree import tree_leaves

from fastweights.cli.train import split_scores
from fastweights.evaluate import evaluate_again, evaluate_text, load_model
from fastweights.models.menu import SEQUENCE_LAYERS
from fastweights.models.sequence_model import SequenceLosses
from fastweights.models.state import enter_segment
from fastweights.tasks.text.corpus import load_corpus
from fastweights.tasks.text.prepared import prepare
from fastweights.tasks.text.source import local_source
from fastweights.train import text_scores
from fastweights.train.activation_checkpointing import checkpoint_blocks
from fastweights.train.checkpoint import Checkpoints
from fastweights.train.config import ConfigError, RunConfig, merge, parse_config
from fastweights.train.errors import RunFolderError
from fastweights.train.loop import train
from fastweights.train.precision import precision_plugin
from fastweights.train.run_model import model_sizes
from fastweights.train.text import TextProblem
from fastweights.train.text_file import run_tokenizer
from tests.train.interrupt import train_in_parts

LENGTH, LANES = 8, 4
CARRY = {"task": {"carry_state": True}}
BF16 = {"precision": "bf16-mixed"}


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


def model_of(layer: str, **values: Any) -> dict[str, Any]:
    """Two blocks, for weights that a carried state depends on through another block."""
    options = {} if layer in ("lstm", "e_lstm") else {"num_heads": 2}
    if layer == "softmax_attention":
        options["memory_length"] = 8 * LENGTH
    return {"model": {"layer": layer, "layer_options": options, "num_layers": 2, **values}}


def gradients(loss: torch.Tensor, model: torch.nn.Module) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


class Recorder(torch.nn.Module):
    """Keeps what it is asked; every byte is as likely."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[torch.Tensor] = []

    def forward(
        self, inputs: torch.Tensor, state: Any, at: None = None, targets: Any = None
    ) -> SequenceLosses:
        self.inputs.append(inputs)
        nats = torch.full(inputs.shape, math.log(256))
        return SequenceLosses(nats, (), torch.zeros(()))


def test_a_step_takes_the_next_segment_of_every_lane(corpus):
    found = problem(corpus)
    tokens = load_corpus(str(corpus)).splits["train"]
    size = len(tokens) // LANES
    model = Recorder()
    for step in range(found.segments + 1):
        found.training_loss(model, step)
    read = torch.cat(model.inputs[:-1], 1)
    want = torch.stack([tokens[i * size : i * size + read.shape[1]] for i in range(LANES)])
    assert torch.equal(read, want.long())
    assert read.shape[1] + LENGTH >= size - 1
    assert torch.equal(model.inputs[-1], model.inputs[0])
    assert found.epoch(found.segments) == 1


def test_every_byte_counts_once(corpus, monkeypatch):
    monkeypatch.setattr(text_scores, "TOKENS_A_PASS", 5 * LENGTH)  # a pass that is not full
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
    assert scores["bits_per_character"] == pytest.approx(scores["bits_per_byte"])
    assert found.evaluate(Recorder(), 0)["validation"]["bits_per_byte"] == pytest.approx(8)


def test_words_count_their_bytes_and_characters(corpus, tmp_path):
    """Both are of the text itself, not of what the tokenizer keeps of it; perplexity is that of a
    token."""
    for i in range(30):
        (corpus / f"{i}.txt").write_text("a  bä   def\n" * (20 + i), encoding="utf-8")
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
    assert scores["bits_per_character"] == pytest.approx(
        scores["bits_per_byte"] * 13 / 12, rel=1e-3
    )
    assert scores["perplexity"] == pytest.approx(math.exp(nats))
    assert model_sizes(config(out)) == (5, 5)
    found.describe(tmp_path)
    assert run_tokenizer(tmp_path).vocab_size == 5
    (tmp_path / "vocabulary.txt").rename(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"^tokenizer .*vocabulary.txt: cannot be read: No such"):
        run_tokenizer(tmp_path)


def test_it_learns_and_tells(corpus, tmp_path):
    result = train(config(corpus), tmp_path / "run", progress=False)
    assert result["splits"]["test"]["bits_per_byte"] < 1.0  # without context: 2
    assert (
        split_scores(result)[1].startswith("test 0.") and "bits per byte" in split_scores(result)[1]
    )
    assert result["reading"] == {"window": "segments", "context_length": LENGTH}
    assert result["by_position"]["last_position"] == [1, 2, 3, 4, 6, 8, 11, 16, 23, 32]


def test_a_part_of_the_text_held_out(corpus):
    """As many tokens from its beginning; bits are still those of the whole text's bytes."""
    whole, part = problem(corpus), problem(corpus, task={"held_out_tokens": 20})
    assert part.sizes == whole.sizes and torch.equal(part.lanes, whole.lanes)
    for split, tokens in part.held_out.items():
        assert torch.equal(tokens, whole.held_out[split][:20]) and len(whole.held_out[split]) > 20
    with pytest.raises(ConfigError, match="8 to validate, 8 to test"):
        problem(corpus, task={"held_out_tokens": LENGTH})


def test_no_loss_by_position_on_a_short_text(corpus):
    found = problem(corpus, task={"context_length": 64})
    assert len(found.held_out["test"]) < 2 * 4 * 64
    assert "by_position" not in found.conclude(Recorder(), 0)


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


def test_attention_without_end_is_not_carried(corpus):
    with pytest.raises(ConfigError, match="would keep every token of an epoch"):
        config(corpus, **CARRY, model={"layer": "softmax_attention"})
    assert config(corpus, **CARRY, **model_of("softmax_attention")).task.carry_state


def test_protocol_published(corpus):
    with pytest.raises(ConfigError, match="task text knows 'strict' alone, got 'published'"):
        config(corpus, protocol="published")


# --- a state that is carried on ------------------------------------------------------------------


@pytest.mark.parametrize("convolution_size", [None, 3])
@pytest.mark.parametrize("layer", SEQUENCE_LAYERS)
def test_carried_segments_equal_one_long_pass(corpus, layer, convolution_size):
    """Loss by loss while the weights stay; each tensor of the state has one row a sequence, and the
    next epoch begins in the empty state."""
    chosen = model_of(layer, convolution_size=convolution_size)
    found = problem(corpus, **CARRY, **chosen)
    model = found.build_model().double()
    steps = min(5, found.segments)
    losses = [found.training_loss(model, step).loss for step in range(steps)]
    inputs = found.lanes[:, : steps * LENGTH + 1].long()
    nats = model.losses(inputs[:, :-1], inputs[:, 1:]).nats
    torch.testing.assert_close(torch.stack(losses), nats.unflatten(1, (steps, -1)).mean((0, 2)))
    assert {len(tensor) for tensor in tree_leaves(found.carried[0])} == {LANES}
    again = found.training_loss(model, found.segments).loss
    torch.testing.assert_close(again, losses[0], rtol=0, atol=0)


@pytest.mark.parametrize("layer", SEQUENCE_LAYERS)
def test_gradients_stop_where_a_segment_begins(corpus, layer):
    """Every weight gets those of its segment, also the ones that a state starts from."""
    found = problem(corpus, **CARRY, **model_of(layer))
    model = found.build_model().double()
    found.training_loss(model, 0)
    state = enter_segment(found.carried[0], model.initial_state(LANES))
    segment = found.lanes[:, LENGTH : 2 * LENGTH + 1].long()
    want = gradients(model.losses(segment[:, :-1], segment[:, 1:], state).nats.mean(), model)
    got = gradients(found.training_loss(model, 1).loss, model)
    torch.testing.assert_close(got, want)
    assert not any(tensor.requires_grad for tensor in tree_leaves(found.carried[0]))


def test_a_carried_change_moves_with_the_weights_that_it_changes(corpus):
    """Of the self-referential weight matrix: new weights, the same change."""
    found = problem(corpus, **CARRY, **model_of("srwm"))
    model = found.build_model().double()
    found.training_loss(model, 0)
    before = enter_segment(found.carried[0], model.initial_state(LANES))
    with torch.no_grad():
        model.get_parameter("blocks.0.layer.key").add_(1)
    after = enter_segment(found.carried[0], model.initial_state(LANES))
    torch.testing.assert_close(after[0].key, before[0].key + 1)
    torch.testing.assert_close(after[1].key, before[1].key, rtol=0, atol=0)


RESUMED: dict[str, dict[str, Any]] = {
    "segments": {},
    "carried": CARRY,
    "parts": {**CARRY, "training": {"accumulate": 2}},
    "weights that change": {**CARRY, **model_of("srwm")},
    "a growing memory": {**CARRY, **model_of("transformer_xl")},
    "behind a convolution": {**CARRY, **BF16, **model_of("lstm", convolution_size=3)},
}


@pytest.mark.parametrize("values", RESUMED.values(), ids=RESUMED)
def test_resumed_in_the_middle_of_an_epoch(corpus, tmp_path, monkeypatch, values):
    training = {"max_steps": 12, "evaluate_every": 6, "checkpoint_every": 5}
    short = merge(values, {"model": {"dropout": 0.2, "num_layers": 1}, "training": training})
    run = config(corpus, **short)
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    want = train(run, whole, progress=False)
    got = train_in_parts(run, pieces, monkeypatch, 8)
    assert got["splits"] == want["splits"]
    a, b = (Checkpoints(folder).load("last") for folder in (whole, pieces))
    torch.testing.assert_close(b.model, a.model, rtol=0, atol=0)
    kept = [one.training_state["problem"].get("carried", []) for one in (a, b)]
    torch.testing.assert_close(kept[1], kept[0], rtol=0, atol=0)
    assert bool(kept[0]) == run.task.carry_state


# --- what saves memory, and precision ------------------------------------------------------------


@pytest.mark.parametrize("carry_state", [False, True])
def test_a_step_in_parts_is_the_step(corpus, carry_state):
    """Loss, gradients and the state that is carried on."""
    task = {"task": {"carry_state": carry_state}}
    whole = problem(corpus, **task)
    parts = problem(corpus, **task, training={"accumulate": 2})
    model = whole.build_model().double()
    for step in range(3):
        want = whole.training_loss(model, step)
        losses = list(parts.training_losses(model, step))
        assert sum(part.num_tokens for part in losses) == want.num_tokens
        mean = torch.stack([part.loss for part in losses]).mean()
        torch.testing.assert_close(mean, want.loss)
        torch.testing.assert_close(gradients(mean, model), gradients(want.loss, model))
    torch.testing.assert_close(parts.state_dict(), whole.state_dict())
    assert bool(parts.state_dict()) == carry_state


def test_accumulated_training_is_the_training(corpus, tmp_path):
    values = {"precision": "64-true", "training": {"max_steps": 20, "warmup_steps": 5}}
    want = train(config(corpus, **values), tmp_path / "whole", progress=False)
    values = merge(values, {"training": {"accumulate": 4}})
    got = train(config(corpus, **values), tmp_path / "parts", progress=False)
    for split, scores in want["splits"].items():
        assert got["splits"][split] == pytest.approx(scores, rel=1e-6)


@pytest.mark.parametrize("layer", SEQUENCE_LAYERS)
def test_blocks_computed_twice_give_the_same(corpus, layer):
    """Loss, gradients and dropout, with a state of its own; the names of the weights, too."""
    experts = {"feed_forward": "noisy_top_k", "feed_forward_options": {"num_experts": 4}}
    chosen = model_of(layer, dropout=0.3, block="pre_norm", ff_dim=None, **experts)
    found = problem(corpus, **CARRY, **chosen)
    plain, twice = found.build_model(), found.build_model()
    checkpoint_blocks(twice)
    assert list(twice.state_dict()) == list(plain.state_dict())
    steps = []
    for model in (plain, twice):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            found.training_loss(model, 0)
            loss, penalty, _ = found.training_loss(model, 1)
            drawn = torch.get_rng_state()
            steps.append((loss, drawn, gradients(loss + penalty, model)))
    torch.testing.assert_close(steps[1], steps[0], rtol=0, atol=0)


def test_what_the_backward_pass_keeps_is_less(corpus):
    found = problem(corpus, model={"num_layers": 4})
    models = found.build_model(), found.build_model()
    checkpoint_blocks(models[1])
    kept = []
    for model in models:
        saved: list[torch.Tensor] = []

        def keep(x: torch.Tensor, saved: list[torch.Tensor] = saved) -> torch.Tensor:
            saved.append(x)
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            found.training_loss(model, 0)
        kept.append(sum(x.numel() for x in saved))
    assert kept[1] < kept[0] / 2


@pytest.mark.parametrize("layer", SEQUENCE_LAYERS)
def test_bfloat16_where_it_does_no_harm(corpus, tmp_path, layer):
    """A run with carried state: the loss and every memory are in float32, and stay near those of
    float32."""
    training = {"max_steps": 4, "evaluate_every": 4, "lr": 1e-3}
    values = {**CARRY, **model_of(layer, num_layers=1), "training": training}
    results = {}
    for precision in ("32-true", "bf16-mixed"):
        run = tmp_path / precision
        results[precision] = train(
            config(corpus, **values, precision=precision), run, progress=False
        )
        state = Checkpoints(run).load("last").training_state["problem"]["carried"]
        assert {tensor.dtype for tensor in state} == {torch.float32}
    want, got = (result["splits"]["test"]["nats_per_token"] for result in results.values())
    assert got == pytest.approx(want, rel=0.03)
    assert got != want


def test_a_memory_is_not_rounded_between_segments(corpus):
    """To bfloat16, or from float64 to float32, as Lightning would."""
    found = problem(corpus, **CARRY)
    for precision, dtype in (("bf16-mixed", torch.float32), ("64-true", torch.float64)):
        fabric = Fabric(accelerator="cpu", devices=1, plugins=precision_plugin(precision, "cpu"))
        model = fabric.setup(found.build_model())
        loss = found.training_loss(model, 0).loss
        (state,) = found.carried[0]
        assert (loss.dtype, state.memory.dtype) == (dtype, dtype)
        assert not torch.equal(state.memory, state.memory.bfloat16().to(dtype))
        inputs = found.lanes[:, :LENGTH].long()
        with unittest.mock.patch.object(
            model.blocks[0], "forward", wraps=model.blocks[0].forward
        ) as block:
            model(inputs, (state,))
        assert torch.equal(block.call_args.args[1].memory, state.memory)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"training": {"accumulate": 3}}, "accumulate: must divide the batch_size 4, got 3"),
        (
            {"task": {"kind": "regex", "pattern": "a*"}, "training": {"accumulate": 2}},
            "accumulate: task regex knows 1 alone, got 2",
        ),
        (
            {
                "task": {"kind": "retrieval", "num_keys": 4},
                "model": {"kind": "associative_memory"},
                "training": {"activation_checkpointing": True},
            },
            "activation_checkpointing: a model associative_memory has no blocks",
        ),
    ],
)
def test_what_saves_no_memory(corpus, values, message):
    with pytest.raises(ConfigError, match=f"^training.{message}$"):
        config(corpus, **values)


# --- the text of a run ---------------------------------------------------------------------------


def test_a_run_knows_its_text(corpus, tmp_path):
    run = tmp_path / "run"
    values = {"training": {"max_steps": 2, "evaluate_every": 2}}
    result = train(config(corpus, **values), run, progress=False)
    there = json.loads((run / "text.json").read_text())
    known = load_corpus(str(corpus))
    assert there == {
        "source": str(corpus),
        "checksum": known.checksum,
        "tokenizer": "bytes",
        "tokens": {split: len(tokens) for split, tokens in known.splits.items()},
    }
    loaded = load_model(run, device="cpu")
    assert evaluate_again(loaded)["splits"] == result["splits"]
    (corpus / "0.txt").write_text("another text")
    message = f"{corpus}: not the text that the run {run} learned: checksum "
    with pytest.raises(RunFolderError, match=message):
        evaluate_again(loaded)
    for content, message in (
        ("[]", "damaged: no checksum"),
        ('{"checksum": "", "tokenizer": "letters"}', "damaged: unknown tokenizer letters"),
    ):
        (run / "text.json").write_text(content)
        with pytest.raises(RunFolderError, match=f"text.json: {message}"):
            evaluate_again(loaded)
    (run / "text.json").unlink()
    for needs_it in (evaluate_again, evaluate_text):
        with pytest.raises(RunFolderError, match=r"which text the run learned is not known$"):
            needs_it(loaded)


def test_a_text_that_is_refused_changes_nothing(corpus, tmp_path):
    prepare(local_source(str(corpus)), tmp_path / "one", "words")
    (corpus / "0.txt").write_text("a new word " * 10, encoding="utf-8")
    prepare(local_source(str(corpus)), tmp_path / "other", "words")
    run = tmp_path / "run"
    values = {"training": {"max_steps": 2, "evaluate_every": 2}, "task": {"context_length": 2}}
    train(config(tmp_path / "one", **values), run, progress=False)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    other = problem(tmp_path / "other", task={"context_length": 2})
    with pytest.raises(RunFolderError, match="not the text that the run"):
        other.describe(run)
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    (run / "text.json").unlink()
    with pytest.raises(RunFolderError, match="which text the run learned is not known"):
        other.describe(run)
    assert not (run / "text.json").exists()


@pytest.mark.parametrize("name", ["bytes", "words"])
def test_an_older_run_does_not_name_its_tokenizer(corpus, tmp_path, name):
    for i in range(30):
        (corpus / f"{i}.txt").write_text("a b c\n" * (20 + i), encoding="utf-8")
    prepare(local_source(str(corpus)), tmp_path / "prepared", name)
    found = problem(tmp_path / "prepared")
    found.describe(tmp_path)
    there = json.loads((tmp_path / "text.json").read_text())
    assert there.pop("tokenizer") == name
    (tmp_path / "text.json").write_text(json.dumps(there))
    assert type(run_tokenizer(tmp_path)) is type(found.tokenizer)
