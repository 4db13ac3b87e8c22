"""Generation: the filters, the steps, the stream of text, the command."""

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from fastweights.cli import main
from fastweights.evaluate import load_text_run
from fastweights.generate import TextStream, draw, generate, keep_top_k, keep_top_p
from fastweights.models.menu import SEQUENCE_LAYERS, build_model
from fastweights.tasks.text.tokenizer import ByteTokenizer
from fastweights.train.config import RunConfig, SequenceModelConfig, parse_config
from fastweights.train.loop import train

VOCABULARY = 11


def make_model(layer: str = "delta_net", **values: Any) -> Any:
    config = SequenceModelConfig(layer=layer, dim=8, num_layers=2, ff_dim=8, **values)
    generator = torch.Generator().manual_seed(0)
    return build_model(config, VOCABULARY, VOCABULARY, generator).double().eval()


def prompt(B: int = 3, T: int = 5) -> torch.Tensor:
    return torch.randint(VOCABULARY, (B, T), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("layer", SEQUENCE_LAYERS)
def test_greedy_steps_equal_the_whole_sequence_again(layer):
    model, tokens = make_model(layer), prompt()
    found = torch.stack(list(generate(model, tokens, 6, temperature=0)), 1)
    for _ in range(6):
        best = model(tokens).logits[:, -1].argmax(-1)
        tokens = torch.cat([tokens, best[:, None]], 1)
    assert torch.equal(found, tokens[:, -6:])


@pytest.mark.parametrize("values", [{}, {"top_k": 3}, {"top_p": 0.5}, {"top_k": 4, "top_p": 0.7}])
def test_the_seed_decides(values):
    model = make_model()

    def sample(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        steps = generate(model, prompt(), 20, 1.5, **values, generator=generator)
        return torch.stack(list(steps), 1)

    assert torch.equal(sample(0), sample(0))
    assert not torch.equal(sample(0), sample(1))


def test_without_end_until_one_stops():
    steps = generate(make_model(), prompt(B=1))
    assert [next(steps).shape for _ in range(40)] == [(1,)] * 40


def brute_force_top_p(scores: list[float], top_p: float) -> set[int]:
    """The most probable ones, one after the other, until they add up."""
    total = sum(map(math.exp, scores))
    kept: set[int] = set()
    mass = 0.0
    for i in sorted(range(len(scores)), key=lambda i: -scores[i]):
        if mass >= top_p:
            break
        kept.add(i)
        mass += math.exp(scores[i]) / total
    return kept


@pytest.mark.parametrize("top_p", [1e-9, 0.3, 0.9, 0.999, 1.0])
def test_top_p_keeps_the_nucleus(top_p, generator):
    scores = 3 * torch.randn(20, 9, generator=generator, dtype=torch.float64)
    for row, kept in zip(scores, keep_top_p(scores, top_p), strict=True):
        assert set(kept.isfinite().nonzero()[:, 0].tolist()) == brute_force_top_p(
            row.tolist(), top_p
        )
        assert torch.equal(kept[kept.isfinite()], row[kept.isfinite()])


def test_top_k_keeps_equal_scores():
    scores = torch.tensor([[1.0, 3.0, 2.0, 2.0, 0.0]])
    assert keep_top_k(scores, 1).isfinite().tolist() == [[False, True, False, False, False]]
    assert keep_top_k(scores, 2).isfinite().tolist() == [[False, True, True, True, False]]
    assert torch.equal(keep_top_k(scores, 99), scores)


def test_draws_follow_the_probabilities(generator):
    scores = torch.tensor([[2.0, 1.0, 0.0, -1.0]]).expand(20_000, 4)
    drawn = draw(scores, 2.0, 3, None, generator)
    share = drawn.bincount(minlength=4) / len(drawn)
    want = torch.tensor([1.0, 0.5, 0.0, -math.inf]).softmax(0)
    torch.testing.assert_close(share, want, atol=0.02, rtol=0)


def test_a_temperature_near_0_draws_the_best(generator):
    scores = torch.randn(20, 9, generator=generator)
    assert torch.equal(draw(scores, 1e-310, None, None, generator), scores.argmax(-1))


@pytest.mark.parametrize("temperature", [0, 1.0])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite(temperature, bad):
    scores = torch.tensor([[0.0, 1.0], [bad, bad]])
    with pytest.raises(ValueError, match="scores of the next token are not finite"):
        draw(scores, temperature, None, None, None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prompt": prompt(T=0)}, r"prompt must be \[B, T\] with T >= 1, got \[3, 0\]"),
        ({"prompt": torch.tensor([[3, 11]])}, "prompt must have tokens from 0 to 10, got 3 to 11"),
        ({"max_tokens": 0}, "max_tokens must be >= 1, got 0"),
        ({"temperature": -1.0}, "temperature must be finite and >= 0, got -1.0"),
        ({"temperature": math.nan}, "temperature must be finite and >= 0, got nan"),
        ({"top_k": 0}, "top_k must be >= 1, got 0"),
        ({"top_p": 0.0}, r"top_p must be in \(0, 1\], got 0.0"),
        ({"top_p": 1.5}, r"top_p must be in \(0, 1\], got 1.5"),
    ],
)
def test_bad_values(values, message):
    with pytest.raises(ValueError, match=message):
        generate(**{"model": make_model(), "prompt": prompt(), **values})


class Words(ByteTokenizer):
    """A space between two words, none before the first."""

    words = ("a", "bird", "sings")
    vocab_size = 3
    separator = 0

    def encode(self, text: str) -> list[int]:
        return [self.words.index(word) for word in text.split()]

    def decode(self, tokens: Any) -> str:
        return " ".join(self.words[token] for token in tokens)


def test_the_stream_holds_back_half_characters():
    text = "né €😀."
    stream = TextStream(ByteTokenizer(), list(b"before"))
    pieces = [stream.push(byte) for byte in text.encode()]
    assert pieces == ["n", "", "é", " ", "", "", "€", "", "", "", "😀", "."]
    assert stream.end() == ""


def test_the_stream_shows_what_never_became_a_character():
    stream = TextStream(ByteTokenizer())
    assert [stream.push(byte) for byte in (0xFF, 0xC3, 0x41, 0xC3)] == ["", "", "��A", ""]
    assert stream.end() == "�"


@pytest.mark.parametrize("given", ["", "a", "a bird"])
def test_the_stream_keeps_the_spaces_between_words(given):
    words = Words()
    stream = TextStream(words, words.encode(given))
    pieces = [stream.push(token) for token in words.encode("bird sings a")]
    assert given + "".join(pieces) == f"{given} bird sings a".strip()


def config(text: Path, **values: Any) -> RunConfig:
    return parse_config(
        {
            "task": {"kind": "text", "text": str(text), "context_length": 8},
            "model": {"layer": "delta_net", "dim": 16, "num_layers": 1, "ff_dim": 16},
            "training": {"batch_size": 4, "max_steps": 60, "evaluate_every": 30, "lr": 1e-2},
            "device": "cpu",
            "num_threads": 1,
            **values,
        }
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a text that repeats four letters; the text is gone."""
    folder = tmp_path_factory.mktemp("generate")
    text = folder / "text.txt"
    text.write_text("abcd" * 500, encoding="utf-8")
    train(config(text), folder / "run", progress=False)
    text.unlink()
    return folder / "run"


def test_what_it_learned(run, capsys):
    command = ["generate", str(run), "--prompt", "abcd", "--max-tokens", "8", "--temperature", "0"]
    assert main(command) == 0
    assert capsys.readouterr().out == "abcdabcdabcd\n"


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("bf16-mixed", torch.bfloat16), ("32-true", torch.float32), ("64-true", torch.float64)],
)
def test_in_the_precision_of_the_run(tmp_path, capsys, monkeypatch, precision, dtype):
    text = tmp_path / "text.txt"
    text.write_text("abcd" * 500, encoding="utf-8")
    training = {"batch_size": 4, "max_steps": 1, "evaluate_every": 1}
    train(config(text, training=training, precision=precision), tmp_path / "run", progress=False)
    scored: list[torch.dtype] = []

    def draw(scores: torch.Tensor, *_: Any) -> torch.Tensor:
        scored.append(scores.dtype)
        return torch.tensor([97])

    monkeypatch.setattr("fastweights.generate.draw", draw)
    assert main(["generate", str(tmp_path / "run"), "--prompt", "a", "--max-tokens", "2"]) == 0
    assert capsys.readouterr().out == "aaa\n"
    assert scored == [dtype, dtype]


def test_a_prompt_from_standard_input_and_many_samples(run, capsys, monkeypatch):
    command = ["generate", str(run), "--max-tokens", "5", "--seed", "3", "--num-samples", "2"]
    command += ["--temperature", "9"]
    outputs = []
    for _ in range(2):
        monkeypatch.setattr("sys.stdin", io.StringIO("cdab"))
        assert main(command) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]
    first, second = outputs[0].split("\n---\n")
    assert first.startswith("cdab") and second.startswith("cdab") and first != second.strip()


def test_spaces_behind_a_prompt_of_words_are_not_doubled(run, capsys, monkeypatch):
    command = ["generate", str(run), "--max-tokens", "2", "--prompt"]
    monkeypatch.setattr("fastweights.generate.draw", lambda *_: torch.tensor([98]))
    assert main([*command, "a  "]) == 0
    assert capsys.readouterr().out == "a  bb\n"
    monkeypatch.setattr(ByteTokenizer, "encode", lambda _, text: list(map(ord, text.split())))
    monkeypatch.setattr(ByteTokenizer, "decode", lambda _, tokens: " ".join(map(chr, tokens)))
    assert main([*command, "a  "]) == 0
    assert capsys.readouterr().out == "a b b\n"


def test_without_a_prompt_it_begins_a_document(run, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(["generate", str(run), "--max-tokens", "4", "--temperature", "0"]) == 0
    loaded, tokenizer = load_text_run(run, device="cpu")
    start = torch.tensor([[tokenizer.separator]])
    tokens = [int(token) for token in generate(loaded.model, start, 4, 0)]
    assert capsys.readouterr().out == tokenizer.decode(tokens) + "\n"


def test_it_ends_behind_a_document(run, capsys, monkeypatch):
    monkeypatch.setattr("fastweights.generate.draw", lambda *_: torch.tensor([0]))
    assert main(["generate", str(run), "--prompt", "ab"]) == 0
    assert capsys.readouterr().out == "ab\n"


def test_a_separator_that_is_the_end_of_a_line_does_not_end_it(run, capsys, monkeypatch):
    monkeypatch.setattr("fastweights.generate.draw", lambda *_: torch.tensor([0]))
    monkeypatch.setattr(
        ByteTokenizer, "encode", lambda _, text: list(text.replace("\n", "\0").encode())
    )
    assert main(["generate", str(run), "--prompt", "ab", "--max-tokens", "3"]) == 0
    assert capsys.readouterr().out == "ab\0\0\0\n"


def test_ctrl_c_ends_it(run, capsys, monkeypatch):
    def interrupted(*_: Any) -> torch.Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr("fastweights.generate.draw", interrupted)
    assert main(["generate", str(run), "--prompt", "ab"]) == 130
    assert capsys.readouterr() == ("ab\n", "fastweights: interrupted\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--top-k", "0"], "top_k must be >= 1, got 0"),
        (["--temperature", "nan"], "temperature must be finite and >= 0, got nan"),
        (["--seed", str(2**64)], f"--seed must be from 0 to 2^63 - 1, got {2**64}"),
        (["--prompt", "caf\udce9"], "--prompt: not UTF-8 at character 3"),
        (["--num-samples", "0"], "--num-samples must be >= 1, got 0"),
    ],
)
def test_bad_options(run, capsys, options, message):
    assert main(["generate", str(run), "--prompt", "ab", *options]) == 2
    assert capsys.readouterr() == ("", f"fastweights: error: {message}\n")


def test_describe_needs_no_text(run, tmp_path, capsys):
    """The vocabulary is that of the run's own tokenizer, unless another text is asked for."""
    result = json.loads((run / "result.json").read_text())
    assert main(["describe", str(run), "--json", "--ff-dim", "16"]) == 0
    assert json.loads(capsys.readouterr().out)["num_parameters"] == result["num_parameters"]
    assert main(["describe", str(run), "--text", str(tmp_path / "none")]) == 2
    assert "none: no such file or folder" in capsys.readouterr().err


def test_a_run_of_another_kind_and_no_run(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("task: {kind: formal_language}\n", encoding="utf-8")
    assert main(["generate", str(tmp_path), "--prompt", "ab"]) == 2
    assert "holds a formal_language run, not a text run" in capsys.readouterr().err
    assert main(["generate", str(tmp_path / "none"), "--prompt", "ab"]) == 2
    assert "is not a run folder (no config.yaml)" in capsys.readouterr().err
