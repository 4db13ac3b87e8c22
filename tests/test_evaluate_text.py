"""`evaluate` of a run on text: every way of reading, on the terminal and as JSON."""

import json
from pathlib import Path
from typing import Any

import pytest

from fastweights.cli import main
from fastweights.train.config import parse_config
from fastweights.train.loop import train


def trained(folder: Path, layer: str) -> Path:
    corpus = folder / "corpus"
    corpus.mkdir()
    for number in range(30):
        (corpus / f"{number}.txt").write_text("añb" * (20 + number), encoding="utf-8")
    settings: dict[str, Any] = {
        "task": {"kind": "text", "text": str(corpus), "context_length": 8},
        "model": {"layer": layer, "dim": 8, "num_layers": 1, "ff_dim": 8},
        "training": {"batch_size": 2, "max_steps": 2, "evaluate_every": 2},
        "device": "cpu",
        "num_threads": 1,
    }
    train(parse_config(settings), folder / "run", progress=False)
    return folder / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("text"), "transformer_xl")


@pytest.fixture
def evaluate(capsys: pytest.CaptureFixture[str]) -> Any:
    """status, stdout and stderr of `fastweights evaluate`."""

    def call(*arguments: object) -> tuple[int, str, str]:
        try:
            status = main(["evaluate", *map(str, arguments)])
        except SystemExit as ended:
            status = int(ended.code or 0)
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return call


def test_without_options_as_in_the_result(run, evaluate):
    result = json.loads((run / "result.json").read_text())
    status, out, _ = evaluate(run, "--json", "--by-position")
    measured = json.loads(out)
    assert status == 0
    assert measured["step"] == result["selected_step"]
    for name in ("splits", "reading", "by_position"):
        assert measured[name] == result[name]
    bits = measured["splits"]["test"]
    assert bits["bits_per_character"] == pytest.approx(bits["bits_per_byte"] * 4 / 3, rel=0.01)


def test_every_way_of_reading(run, evaluate):
    found, reading = {}, None
    for options in (
        ("--window", "segments", "--context-length", "16"),
        ("--window", "carried", "--memory-length", "32"),
        ("--window", "carried", "--lanes", "3"),
        ("--window", "sliding"),
        ("--window", "sliding", "--stride", "4", "--context-length", "12"),
    ):
        status, out, err = evaluate(run, "--split", "test", "--json", *options)
        assert (status, err) == (0, "")
        measured = json.loads(out)
        assert list(measured["splits"]) == ["test"]
        found[" ".join(options)] = measured["splits"]["test"]["nats_per_token"]
        reading = measured["reading"]
    assert len(set(found.values())) == len(found)
    assert reading == {"window": "sliding", "context_length": 12, "stride": 4}


def test_the_lanes_and_the_memory_are_those_that_were_used(run, evaluate):
    """A lane is as long as a piece at least, and its first token is not predicted."""
    options = ("--window", "carried", "--context-length", "20", "--lanes", "9999")
    status, out, _ = evaluate(run, *options, "--memory-length", "7", "--json")
    measured = json.loads(out)
    assert status == 0
    assert measured["memory_length"] == 7
    assert measured["reading"].keys() == {"window", "context_length", "num_lanes"}
    for split, scores in measured["splits"].items():
        lanes = measured["reading"]["num_lanes"][split]
        assert 1 < lanes < 9999
        assert scores["num_tokens"] % lanes == 0
        assert 20 <= scores["num_tokens"] // lanes < 41
    assert json.loads(evaluate(run, "--json")[1])["memory_length"] == 512
    used = sorted(set(measured["reading"]["num_lanes"].values()))
    assert f" in {' and '.join(map(str, used))} lanes" in evaluate(run, *options)[1]


def test_the_tables(run, evaluate):
    status, out, _ = evaluate(run, "--window", "carried", "--lanes", "2", "--by-position", "2")
    assert status == 0
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0].endswith("(step 2), state carried over pieces of 8 tokens in 2 lanes")
    assert lines[1] == "split tokens bits/byte bits/character nats/token perplexity"
    assert any("windows of 16 tokens; trained on 8" in line for line in lines)
    assert [line.split(" 0")[0].split(" 5")[0] for line in lines[-3:]] == [
        "7 to 8",
        "9 to 11",
        "12 to 16",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--window", "slide"], "unknown window 'slide'"),
        (["--context-length", "999999"], "context_length 999999 needs a text of at least 1000000"),
        (["--stride", "2"], "stride has no meaning for window segments"),
        (["--window", "sliding", "--stride", "9"], "stride must be at most context_length = 8"),
        (["--lanes", "2"], "num_lanes has no meaning for window segments"),
        (["--memory-length", "2"], "memory_length has no meaning for window segments"),
        (["--window", "carried", "--memory-length", "-2"], "memory_length must be >= 0, got -2"),
        (["--by-position", "9999"], "loss by position in windows of 79992 tokens needs two"),
        (["--by-position", "0"], "by_position must be >= 1 training context, got 0"),
        (["--split", "train"], "unknown split 'train'"),
        (["--language", "parity"], "is a text run, without strings"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(run, evaluate, options, message):
    status, out, err = evaluate(run, *options)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err


@pytest.mark.parametrize(
    ("layer", "options", "message"),
    [
        (
            "delta_net",
            ["--memory-length", "8"],
            "memory_length: layer delta_net keeps none of its inputs: its memory has one size",
        ),
        (
            "softmax_attention",
            [],
            "window carried needs a memory_length: softmax_attention keeps every input of the text",
        ),
    ],
)
def test_layers_and_their_memory(tmp_path, evaluate, layer, options, message):
    status, _, err = evaluate(trained(tmp_path, layer), "--window", "carried", *options)
    assert status == 2 and message in err


def test_a_memory_of_chosen_length(tmp_path, evaluate):
    """A longer one sees more."""
    run = trained(tmp_path, "softmax_attention")
    found = [
        json.loads(evaluate(run, "--window", "carried", "--memory-length", n, "--json")[1])
        for n in (0, 8, 9999)
    ]
    assert len({each["splits"]["test"]["nats_per_token"] for each in found}) == 3
