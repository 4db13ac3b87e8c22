"""Commands as a user types them: options, errors of one line, exit statuses."""

import errno
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fastweights.cli import COMMANDS, main
from fastweights.cli.run_options import option_names
from fastweights.cli.values import parse_assignments, parse_value
from fastweights.experiments.formal_languages import LANGUAGES as STUDIED
from fastweights.near_names import near_names
from fastweights.tasks.formal.files import write_pairs
from fastweights.tasks.formal.menu import LANGUAGES
from fastweights.train import loop
from fastweights.train.config import ConfigError, RunConfig, load_config, parse_config
from fastweights.train.errors import CheckpointError, TrainingInterrupted

TINY = [
    *("--regex", "(0|10*1)*", "--train-window", "1", "10", "--test-window", "11", "14"),
    *("--num-train", "40", "--num-validation", "12", "--num-bin0", "12", "--num-bin1", "12"),
    *("--dim", "8", "--ff-dim", "8", "--max-steps", "8", "--evaluate-every", "4"),
    *("--batch-size", "8", "--device", "cpu", "--num-threads", "1"),
    *("--horizon-lengths", "10", "20", "--horizon-sequences", "4"),
]

# In one interpreter: every help, wrong usage, what needs no layer. Then nothing heavy is loaded.
LIGHT = """
import contextlib, io, sys
from fastweights.cli import COMMANDS, main
calls = [[], ["--help"], ["--version"], ["trian"], ["train", "--layr", "x"], ["train", "--lr=-1"]]
calls += [["train", "--device", "gpu", "--out", "x"], ["study", "dmo", "--out", "x"]]
calls += [["study", "demo", "--out", "x", "--set", "lrr=1"]]
calls += [["list", "studies"], ["list", "models"], ["list", "languages"]]
calls += [[command, "--help"] for command in COMMANDS]
for call in calls:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        with contextlib.suppress(SystemExit):
            main(call)
heavy = ("torch", "lightning_fabric", "matplotlib", "tensorboard", "automata", "numpy", "rich")
sys.exit(" ".join(name for name in heavy if name in sys.modules) or None)
"""


MATCH_WHAT = "--match-size names what --match chooses: give --match OTHER, too"


class Outcome:
    """Exit status and what was printed."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


Call = Callable[..., Outcome]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def run_main(*arguments: object) -> Outcome:
        capsys.readouterr()
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = int(stop.code or 0)
        return Outcome(status, *capsys.readouterr())

    return run_main


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[RunConfig, Path, dict[str, Any]]]:
    """What `train` would have been called with."""
    calls = []

    def record(config: RunConfig, folder: Path, **settings: Any) -> dict[str, Any]:
        calls.append((config, folder, settings))
        return {
            "steps": 1,
            "wall_s": 1.0,
            "stopped_because": "test",
            "selected_step": 1,
            "splits": {},
        }

    monkeypatch.setattr(loop, "train", record)
    return calls


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of seconds, made by the command."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", *TINY, "--out", str(folder), "--quiet"]) == 0
    return folder


# --- the whole -----------------------------------------------------------------------------------


def test_help_errors_and_lists_import_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LIGHT], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(call: Call, command: str) -> None:
    outcome = call(command, "--help")
    assert outcome.status == 0
    assert outcome.out.startswith(f"usage: fastweights {command}")
    assert COMMANDS[command][1:] in " ".join(outcome.out.split())
    assert "required)" not in outcome.out
    assert all(line.count("(default:") < 2 for line in outcome.out.splitlines())


def test_version_and_no_command(call: Call) -> None:
    import fastweights

    assert call("--version").out == f"fastweights {fastweights.__version__}\n"
    outcome = call()
    assert outcome.status == 2
    assert "commands:" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("trian", "unknown command 'trian'; did you mean 'train'?"),
        ("--versoin", "unknown option --versoin; did you mean --version?"),
        ("train --layr srwm", "unknown option --layr; did you mean --layer or --lr?"),
        ("train --batchsize 3", "unknown option --batchsize; did you mean --batch-size?"),
        (
            "train --training.lrr 3",
            "unknown option --training.lrr; did you mean --training.lr?",
        ),
        ("train", "train needs --out RUN, or --resume RUN for a run that was stopped"),
        ("train a.yaml b.yaml --out r", "too many arguments: b.yaml"),
        ("train --out=", "argument --out: must not be empty"),
        (
            "train --out r --layer-options num_heads",
            "--layer-options: must be NAME=VALUE, got 'num_heads'",
        ),
        (
            "train --out r --feed-forward-options num_experts",
            "--feed-forward-options: must be NAME=VALUE, got 'num_experts'",
        ),
        (
            "train --out r --feed-forward dens",
            "unknown feed-forward layer 'dens'; did you mean dense?",
        ),
        ("describe --match-size ff_dim", MATCH_WHAT),
        ("describe --num-keys 3", "describe knows sequence models, not those of task retrieval"),
        ("describe no-run", "no-run: cannot be read: No such file or directory"),
        ("describe .", ".: is not a run folder (no config.yaml)"),
        ("describe --layer lst", "unknown layer 'lst'; did you mean lstm or e_lstm?"),
        ("train --out r --lr x", "training.lr: must be a number, got 'x'"),
        (
            "train --out r --device gpu",
            "device: must be 'auto', 'cpu' or 'cuda', got 'gpu'; did you mean 'cpu'?",
        ),
        (
            "train --out r --regex a --language parity",
            "--language and --regex ask for different tasks: give one",
        ),
        (
            "train --out r --num-keys 3 --test-lengths 64",
            "--num-keys and --test-lengths ask for different tasks: give one",
        ),
        (
            "train --out r --vocab-size 100",
            "task.vocab_size: 256 pairs of different keys need 514, got 100",
        ),
        (
            "train --out r --task.kind recall --protocol published",
            "protocol: task recall knows 'strict' alone, got 'published'",
        ),
        ("train --out r --resume s", "--resume s and --out r name different run folders"),
        ("study dmo --out s", "argument NAME: unknown study 'dmo'; did you mean 'demo'?"),
        ("study demo", "the following arguments are required: --out"),
        (
            "study demo --out s --tasks party",
            "argument --tasks: unknown task 'party'; did you mean 'parity'?",
        ),
        (
            "study demo --out s --models deltanet",
            "argument --models: unknown model 'deltanet'; did you mean 'delta_net' or "
            "'lm_delta_net' or 'delta_net_0_2'?",
        ),
        ("study demo --out s --seeds -1", "argument --seeds: must be >= 0, got -1"),
        ("study demo --out s --set lr", "--set: must be NAME=VALUE, got 'lr'"),
        ("study demo --out s --set lrr=1", "--set: unknown name 'lrr'; did you mean 'lr'?"),
        (
            "study demo --out s --set training.lrr=1",
            "training.lrr: unknown key; did you mean 'lr'?",
        ),
        (
            "study demo --out s --set layer=srwm",
            "--set: layer is not the same in every run of a study: use --models",
        ),
        (
            "study demo --out s --protocol publishd",
            "protocol: must be 'strict' or 'published', got 'publishd'; did you mean 'published'?",
        ),
        ("study demo --out s --workers 0", "workers must be >= 1, got 0"),
        pytest.param(
            "study demo --out s --set device=cuda",
            "device: 'cuda' was asked for, but there is no CUDA device here",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is one here"),
        ),
        ("list layer", "argument WHAT: unknown section 'layer'; did you mean 'layers'?"),
        (
            "evaluate r --checkpoint bst",
            "argument --checkpoint: unknown checkpoint 'bst'; did you mean 'best'?",
        ),
        (
            "evaluate r --files f --length 3",
            "--length needs a language, which --files does not have",
        ),
        ("evaluate no-run", "no-run: is not a run folder (no config.yaml)"),
        ("predict no-run 01", "no-run: is not a run folder (no config.yaml)"),
        ("report no-run", "no-run: no such folder"),
    ],
)
def test_wrong_usage_is_one_line(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, error: str
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = call(*arguments.split())
    assert outcome.err == f"fastweights: error: {error}\n"
    assert (outcome.status, outcome.out) == (2, "")
    assert list(tmp_path.iterdir()) == []


def test_many_known_names_are_left_to_list() -> None:
    names = [f"name_{number}" for number in range(41)]
    assert near_names("zzz", names) == "; `fastweights list` has the 41 that are known"
    assert near_names("zzz", names[:2]) == "; known: name_0, name_1"
    assert near_names("name_400", names).startswith("; did you mean")


@pytest.mark.parametrize(
    ("error", "status", "lines"),
    [
        (ConfigError(["a: is missing", "b: is missing"]), 2, ["a: is missing", "b: is missing"]),
        (ValueError("unknown\nlayer"), 2, ["unknown layer"]),
        (CheckpointError("index.json: damaged"), 1, ["index.json: damaged"]),
        (
            OSError(errno.ENOSPC, "No space left on device", "x"),
            1,
            ["x: No space left on device"],
        ),
        (RuntimeError("bug"), 1, ["RuntimeError: bug (--debug shows where)"]),
    ],
)
def test_errors_of_the_library_are_one_line_each(
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    status: int,
    lines: list[str],
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(loop, "train", fail)
    outcome = call("train", "--out", "r")
    assert outcome.err == "".join(f"fastweights: error: {line}\n" for line in lines)
    assert outcome.status == status
    for arguments in (("--debug", "train", "--out", "r"), ("train", "--out", "r", "--debug")):
        assert "Traceback" in call(*arguments).err


@pytest.mark.parametrize(
    ("stop", "line"),
    [
        (KeyboardInterrupt(), "fastweights: interrupted\n"),
        (TrainingInterrupted("stopped at step 3"), "fastweights: stopped at step 3\n"),
    ],
)
def test_ctrl_c_is_130(
    call: Call, monkeypatch: pytest.MonkeyPatch, stop: BaseException, line: str
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise stop

    monkeypatch.setattr(loop, "train", interrupt)
    outcome = call("train", "--out", "r")
    assert (outcome.status, outcome.err) == (130, line)


@pytest.mark.skipif(os.name != "posix", reason="pipes")
def test_a_reader_that_leaves_is_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "fastweights", "list", "studies"],
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=60,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


# --- train ---------------------------------------------------------------------------------------


def test_every_field_of_the_configuration_is_an_option(call: Call) -> None:
    shown = call("train", "--help").out
    for short, dotted in option_names().items():
        flag = dotted.replace("_", "-")
        assert f"--{flag} " in shown
        assert f"--{short.replace('_', '-')} " in shown or dotted.endswith(".kind")
    fields = set(RunConfig.model_fields) - {"task", "model", "training"}
    for name in ("model", "training"):
        group = getattr(RunConfig(), name)
        fields |= {f"{name}.{field}" for field in type(group).model_fields}
    assert fields <= set(option_names().values())


def test_flags_lie_over_the_file_and_the_file_over_the_defaults(
    call: Call, asked: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SEED", "LR", "TRAINING__LR", "TRAINING", "MODEL", "FASTWEIGHTS_SEED"):
        monkeypatch.setenv(name, "7")
    file = tmp_path / "run.yaml"
    file.write_text("seed: 5\ntraining: {lr: 0.5, max_steps: 9}\nmodel: {dim: 16}\n")
    assert call("train", file, "--out", "r", "--lr", "0.25", "--model.dim", "8").status == 0
    config, folder, settings = asked[0]
    assert config == parse_config(
        {"seed": 5, "training": {"lr": 0.25, "max_steps": 9}, "model": {"dim": 8}}
    )
    assert (folder, settings) == (Path("r"), {"resume": False, "progress": True})


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        ("", {}),
        (
            "--language dyck_1 --variant strict",
            {"task": {"language": "dyck_1", "variant": "strict"}},
        ),
        (
            "--regex (ab)* --symbols 01",
            {"task": {"kind": "regex", "pattern": "(ab)*", "symbols": "01"}},
        ),
        ("--dfa a.yaml", {"task": {"kind": "dfa", "path": "a.yaml"}}),
        ("--files data", {"task": {"kind": "files", "folder": "data"}}),
        ("--task.kind recall", {"task": {"kind": "recall"}}),
        (
            "--vocab-size 1024 --lengths 16 32 --convolution-size null",
            {
                "task": {"kind": "recall", "vocab_size": 1024, "lengths": [16, 32]},
                "model": {"convolution_size": None},
            },
        ),
        (
            "--layer-options a=silu b=2 --layer-options c=2.5 d=true",
            {"model": {"layer_options": {"a": "silu", "b": 2, "c": 2.5, "d": True}}},
        ),
        (
            "--training.patience null --clip-norm 1",
            {"training": {"patience": None, "clip_norm": 1.0}},
        ),
        ("--horizon-lengths 5 10 --horizon-lengths 20", {"horizon_lengths": [5, 10, 20]}),
        ("--horizon-lengths", {"horizon_lengths": []}),
        (
            "--feed-forward moe --feed-forward-options num_experts=8 gated=true --final-norm true",
            {
                "model": {
                    "feed_forward": "moe",
                    "feed_forward_options": {"num_experts": 8, "gated": True},
                    "final_norm": True,
                }
            },
        ),
        (
            "--seed 3 --precision 64-true --protocol published",
            {"seed": 3, "precision": "64-true", "protocol": "published"},
        ),
        ("--lr 3e-4 --training.max-steps 12", {"training": {"lr": 3e-4, "max_steps": 12}}),
    ],
)
def test_options_become_the_configuration(
    call: Call, asked: list[Any], arguments: str, values: dict[str, Any]
) -> None:
    outcome = call("train", "--out", "r", "--quiet", *arguments.split())
    assert (outcome.status, outcome.err) == (0, "")
    config = asked[0][0]
    assert config == parse_config(values)
    for group in ("layer_options", "feed_forward_options"):
        options = values.get("model", {}).get(group, {})
        got = getattr(config.model, group)
        assert [type(value) for value in got.values()] == [type(v) for v in options.values()]


def test_another_kind_of_task_replaces_that_of_the_file(
    call: Call, asked: list[Any], tmp_path: Path
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("task: {kind: regex, pattern: a*, num_train: 5}\n")
    call("train", file, "--out", "r", "--language", "dyck_1")
    call("train", file, "--out", "r", "--num-bin0", "9")
    assert [config.task.model_dump(exclude_unset=True) for config, _, _ in asked] == [
        {"kind": "formal_language", "language": "dyck_1"},
        {"kind": "regex", "pattern": "a*", "num_train": 5, "num_bin0": 9},
    ]


def test_train_leaves_a_run_and_says_what_it_is_worth(call: Call, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "run"
    outcome = call("train", *TINY, "--out", folder)
    assert outcome.status == 0
    first, second, third = outcome.out.splitlines()
    result = json.loads((folder / "result.json").read_text())
    assert first.startswith(f"{folder}: 8 steps, ") and first.endswith("because: max_steps")
    bin1 = 100 * result["splits"]["bin1"]["sequence_accuracy"]
    assert second.startswith("at step ") and f"bin1 {bin1:.2f} %" in second
    assert third.startswith("horizon: ") and third.endswith("of up to 20)")
    assert load_config(folder / "config.yaml").model.dim == 8


def test_a_folder_in_use_is_refused_and_resumed_with_its_own_configuration(
    call: Call, trained: Path
) -> None:
    refused = call("train", *TINY, "--out", trained)
    assert refused.status == 1
    assert refused.err == (
        f"fastweights: error: {trained}: is not empty; resume the run or name another folder\n"
    )
    for arguments in (("--resume", trained), ("--out", trained, "--resume")):
        again = call("train", *arguments)
        assert (again.status, again.err) == (0, "")
        assert again.out.startswith(f"{trained}: 8 steps, ")
    other = call("train", "--resume", trained, "--lr", "1")
    assert other.status == 1
    assert "belongs to another configuration: training.lr is 0.003 there, 1.0" in other.err
    nothing = call("train", "--resume", trained / "nothing")
    assert nothing.err.endswith("no run to resume (no config.yaml)\n")


def test_train_stops_like_on_ctrl_c_when_its_standard_input_ends(tmp_path: Path) -> None:
    """What a study's workers rely on: the checkpoint is written, the status is 130."""
    folder = tmp_path / "run"
    settings = ["--max-steps", "100000000", "--patience", "null", "--checkpoint-every", "5"]
    settings += ["--out", str(folder)]
    worker = subprocess.Popen(
        [sys.executable, "-m", "fastweights", "train", "--stop-at-eof", *TINY, *settings],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not (folder / "checkpoints" / "index.json").exists():
            assert worker.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        _, said = worker.communicate(timeout=60)  # closes its standard input
    finally:
        worker.kill()
        worker.wait()
    assert worker.returncode == 130, said
    assert f"to go on: fastweights train --resume {folder}" in said.splitlines()[-1]
    assert not (folder / "failure.json").exists()


# --- the others ----------------------------------------------------------------------------------


def test_evaluate_prints_the_accuracy_of_the_own_splits_and_the_horizon(
    call: Call, trained: Path
) -> None:
    result = json.loads((trained / "result.json").read_text())
    measured = json.loads(
        call("evaluate", trained, "--json", "--device", "cpu", "--length", 20, 10).out
    )
    assert measured["splits"] == result["splits"]
    assert measured["horizon"] == result["horizon"]
    assert (measured["checkpoint"], measured["step"]) == ("best", result["selected_step"])
    table = call("evaluate", trained, "--checkpoint", "last", "--length", "10").out
    assert "last checkpoint (step 8)" in table
    for row in ("validation", "bin0", "bin1", "10", "longest length"):
        assert any(line.startswith(row) for line in table.splitlines())


def test_evaluate_and_predict_on_the_device_that_is_asked_for(
    call: Call, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert call("predict", trained, "01", "--device", "cpu").status == 0
    for command in (("evaluate", trained), ("predict", trained, "01")):
        outcome = call(*command, "--device", "cuda")
        assert (outcome.status, outcome.out) == (2, "")
        assert outcome.err == (
            "fastweights: error: device: 'cuda' was asked for, but there is no CUDA device here\n"
        )


def test_evaluate_on_the_users_files(call: Call, trained: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "mine"
    write_pairs([LANGUAGES["parity"].example(tuple("0110"))], prefix)
    assert "mine" in call("evaluate", trained, "--files", prefix).out
    prefix.with_suffix(".src").write_text("0 1 x 0\n")
    outcome = call("evaluate", trained, "--files", prefix)
    assert outcome.status == 2
    assert outcome.err == (
        f"fastweights: error: {prefix}.src, line 1: unknown symbol 'x' at position 3 (known: 0 1)\n"
    )
    outcome = call("evaluate", trained, "--language", "dyck_1")
    assert outcome.err.startswith("fastweights: error: dyck_1 has the symbol '(', which ")


def test_evaluate_on_another_pattern_or_automaton(
    call: Call, trained: Path, tmp_path: Path
) -> None:
    measured = json.loads(call("evaluate", trained, "--regex", "1*", "--length", 4, "--json").out)
    assert (measured["task"], list(measured["splits"])) == (
        "regex '1*'",
        ["validation", "bin0", "bin1"],
    )
    assert measured["horizon"]["lengths"] == [4]
    file = tmp_path / "automaton.yaml"
    file.write_text(
        "states: [s]\nsymbols: ['1']\ninitial: s\naccepting: [s]\ntransitions: {s: {'1': s}}\n"
    )
    assert f"on {file}" in call("evaluate", trained, "--dfa", file).out
    for option, value in (("--regex", "(a|b)*"), ("--dfa", tmp_path / "none.yaml")):
        outcome = call("evaluate", trained, option, value)
        assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    both = call("evaluate", trained, "--regex", "1*", "--language", "parity")
    assert both.err.endswith("argument --language: not allowed with argument --regex\n")


def test_predict_prints_a_line_a_position(
    call: Call, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = call("predict", trained, "011").out.splitlines()
    assert lines[0].split() == ["position", "symbol", "label", "probability", "true", "label"]
    assert [line.split()[:2] for line in lines[2:5]] == [["1", "0"], ["2", "1"], ["3", "1"]]
    assert lines[5].endswith("of 3 labels right")
    assert call("predict", trained, "0 1 1").out.splitlines() == lines
    (found,) = json.loads(call("predict", trained, "011", "--json").out)
    assert [one["expected"] for one in found] == ["1", "0", "1"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("011\n\n10\n"))
    assert [len(one) for one in json.loads(call("predict", trained, "-", "--json").out)] == [3, 2]
    unknown = call("predict", trained, "01x")
    assert (unknown.status, unknown.out) == (2, "")
    assert unknown.err == "fastweights: error: unknown symbol 'x' at position 3 (symbols: 0 1)\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO("01\n0y\n"))
    assert "error: line 2: unknown symbol 'y' at position 2" in call("predict", trained, "-").err
    assert call("predict", trained, "").err == "fastweights: error: the string is empty\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"01\n\xff\n"), "utf-8"))
    error = "fastweights: error: standard input: not UTF-8 at byte 3\n"
    assert call("predict", trained, "-").err == error


def test_report_writes_and_prints(call: Call, trained: Path, tmp_path: Path) -> None:
    outcome = call("report", trained, "--out", tmp_path / "report")
    assert (outcome.status, outcome.err) == (0, "")
    *_, page, plots = outcome.out.splitlines()
    assert page == f"report: {tmp_path}/report/report.md"
    assert plots.startswith(f"plots:  {tmp_path}/report (") and ".png" in plots
    assert (tmp_path / "report" / "report.json").exists()
    (tmp_path / "file").touch()
    refused = call("report", trained, "--out", tmp_path / "file")
    assert refused.err == f"fastweights: error: {tmp_path}/file: is not a folder\n"


def test_describe_counts_the_model_of_a_run_or_a_configuration(
    call: Call, trained: Path, tmp_path: Path
) -> None:
    result = json.loads((trained / "result.json").read_text())
    outcome = call("describe", trained, "--json")
    assert (outcome.status, outcome.err) == (0, "")
    measured = json.loads(outcome.out)
    assert measured["num_parameters"] == result["num_parameters"]
    assert measured["flops"]["feed-forward"] == 4 * 8 * 8
    table = call("describe", trained, "--ff-dim", "16", "--after", "7").out
    for line in ("feed-forward ", "state of a sequence after 7 tokens: 16 numbers, 64 bytes"):
        assert line in table
    assert f" {4 * 8 * 16:,}\n" in table
    other = tmp_path / "other.yaml"
    other.write_text("model: {layer: srwm, dim: 32, ff_dim: 200}\n")
    matched = call("describe", "--dim", "32", "--layer", "srwm", "--match", other)
    assert (matched.status, matched.out.splitlines()[-3]) == (0, "ff_dim: 200")
    assert call("describe", "--task.kind", "recall", "--layer", "lstm").status == 0


def test_list_names_everything_with_the_options(call: Call) -> None:
    every = call("list").out
    for name in (*STUDIED, "srwm", "softmax_attention", "post_norm", "formal_languages"):
        assert f"  {name}" in every
    layers = call("list", "layers").out
    assert "  max_write_strength=1.0\n" in layers
    assert "feature_map=elu_plus_one  (of elu_plus_one, dpfp," in layers
    assert "dense: " in call("list", "feed-forwards").out
    assert "0 1" in call("list", "languages").out
    assert call("list", "studies").out.startswith("demo: ")


def test_study_trains_what_is_left_and_lists_what_failed(call: Call, tmp_path: Path) -> None:
    """One run by a real worker; one that fails at once, as its heads do not divide its width."""
    settings = ["max_steps=3", "dim=8", "horizon_lengths=10,20", "model.layer_options.num_heads=4"]
    chosen = ["--models", "delta-net", "--seeds", "1", "--set", *settings]
    command = ["study", "demo", "--out", tmp_path, *chosen]
    outcome = call(*command)
    assert outcome.status == 0, outcome.err
    assert "[1/1] parity/delta_net/seed_1: 3 steps" in outcome.err
    assert outcome.out.startswith(f"1 of 1 runs done in {tmp_path}; tables and plots: fastweights")
    folder = tmp_path / "parity/delta_net/seed_1"
    assert "step 3" in (folder / "log.txt").read_text()
    began = (folder / "result.json").stat().st_mtime_ns
    assert "1 run (1 done before), " in call(*command).err
    assert (folder / "result.json").stat().st_mtime_ns == began
    (folder / "result.json").unlink()
    (folder / "failure.json").write_text('{"error": "the loss is nan at step 3"}')
    outcome = call(*command, "--quiet")
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err.splitlines() == [
        "fastweights: error: parity/delta_net/seed_1 failed: the loss is nan at step 3 "
        f"({folder}/log.txt)",
        "fastweights: --retry-failed takes up the runs that failed",
    ]


# --- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("3e-3", 0.003),
        ("true", True),
        ("null", None),
        ("silu", "silu"),
        ("50,100", [50, 100]),
        ("[]", []),
        ("a,b", "a,b"),
        ('"3"', "3"),
        ("", ""),
    ],
)
def test_parse_value(text: str, value: object) -> None:
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


def test_parse_assignments() -> None:
    names = {"lr": "training.lr", "seed": "seed"}
    pairs = ["lr=1", "training.max-steps=2", "seed=3", "model.layer_options.a=b=c"]
    assert parse_assignments(pairs, "--set", names) == {
        "training": {"lr": 1, "max_steps": 2},
        "seed": 3,
        "model": {"layer_options": {"a": "b=c"}},
    }
    with pytest.raises(ValueError, match=r"seed\.x lies inside a value that is set, too"):
        parse_assignments(["seed=3", "seed.x=1"], "--set", names)


def test_retrieval_from_training_to_its_memory(call: Call, tmp_path: Path) -> None:
    run, picture = tmp_path / "run", tmp_path / "memory.png"
    settings = ["--max-steps", "20", "--evaluate-every", "10", "--num-threads", "1"]
    trained = call("train", "--num-keys", "6", *settings, "--out", run)
    assert trained.status == 0, trained.err
    assert "test squared error 0." in trained.out
    shown = call("evaluate", run, "--memory", picture)
    assert shown.status == 0, shown.err
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "strict" in shown.out and "published" in shown.out
    measured = json.loads(call("evaluate", run, "--json").out)
    assert measured["retrieval"]["strict"]["num_queries"] == 600
    for command, message in (
        (
            ["evaluate", run, "--language", "parity"],
            f"--language: {run} is a retrieval run, without strings",
        ),
        (["evaluate", run, "--string", "01"], "--string is what --memory is drawn for"),
        (["evaluate", run, "--memory", "a.jpg"], "--memory a.jpg: must end in .png"),
        (["predict", run, "01"], f"{run}: holds a retrieval run: it knows no strings"),
    ):
        refused = call(*command)
        assert refused.status == 2 and message in refused.err and refused.err.count("\n") == 1
    again = call("train", "--num-keys", "6", "--rule", "softmax", "--layer", "lstm", "--out", "r")
    assert again.status == 2 and "model" in again.err and again.err.count("\n") == 1


def test_recall_from_training_to_its_evaluation(call: Call, tmp_path: Path) -> None:
    run = tmp_path / "run"
    sizes = ["--vocab-size", "16", "--task.lengths", "8", "--task.test-lengths", "8", "16"]
    settings = ["--max-steps", "2", "--dim", "8", "--num-threads", "1"]
    trained = call("train", *sizes, *settings, "--out", run)
    assert trained.status == 0, trained.err
    result = json.loads((run / "result.json").read_text())
    measured = json.loads(call("evaluate", run, "--json").out)
    assert measured["step"] == result["selected_step"]
    assert measured["splits"] == result["splits"]
    assert measured["by_length"] == result["by_length"]
    shown = call("evaluate", run)
    assert shown.status == 0, shown.err
    assert [line.split()[:2] for line in shown.out.splitlines()[-2:]] == [
        ["length", "8"],
        ["length", "16"],
    ]
    for command, message in (
        (["evaluate", run, "--length", "8"], f"--length: {run} is a recall run, without strings"),
        (
            ["evaluate", run, "--memory", "a.png", "--string", "1 2"],
            f"--string: {run} is a recall run, without strings",
        ),
        (["predict", run, "01"], f"{run}: holds a recall run: it knows no strings"),
    ):
        refused = call(*command)
        assert refused.status == 2 and message in refused.err and refused.err.count("\n") == 1
    picture = tmp_path / "memory.png"
    assert call("evaluate", run, "--memory", picture).status == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    page = call("report", run)
    assert page.status == 0, page.err
    assert (run / "recall_curves.png").exists() and "recall_16_random" in page.out


def test_text_from_training_to_its_report(call: Call, tmp_path: Path) -> None:
    run, corpus = tmp_path / "run", tmp_path / "corpus"
    corpus.mkdir()
    for i in range(25):
        (corpus / f"{i}.txt").write_text("abcd" * (10 + i), encoding="utf-8")
    sizes = ["--text", corpus, "--context-length", "8", "--batch-size", "4", "--dim", "8"]
    experts = ["num_experts=4", "expert_dim=8", "top_k=2", "expert_dropout=0.1"]
    settings = ["--feed-forward", "sigma_moe", "--feed-forward-options", *experts]
    settings += ["--max-steps", "4", "--evaluate-every", "2", "--num-threads", "1"]
    trained = call("train", *sizes, *settings, "--out", run)
    assert trained.status == 0, trained.err
    assert "test " in trained.out and "bits per byte" in trained.out
    result = json.loads((run / "result.json").read_text())
    measured = json.loads(call("evaluate", run, "--json").out)
    assert measured["step"] == result["selected_step"]
    assert measured["splits"] == result["splits"]
    shown = call("evaluate", run)
    assert shown.status == 0, shown.err
    bits = result["splits"]["test"]["bits_per_byte"]
    assert any(f"{bits:.4f}" in line for line in shown.out.splitlines() if "test" in line)
    picture = tmp_path / "memory.png"
    assert call("evaluate", run, "--memory", picture, "--string", "ab\n$c$").status == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    for command, message in (
        (["evaluate", run, "--memory", picture], "--memory needs the --string"),
        (["evaluate", run, "--memory", picture, "--string", ""], "the text has no tokens"),
        (["evaluate", run, "--length", "8"], f"--length: {run} is a text run, without strings"),
        (["predict", run, "abcd"], f"{run}: holds a text run: it knows no strings"),
    ):
        refused = call(*command)
        assert refused.status == 2 and message in refused.err and refused.err.count("\n") == 1
    page = call("report", run)
    assert page.status == 0, page.err
    assert "bits per byte" in page.out and (run / "report.md").exists()
    assert {path.name for path in run.glob("*.png")} == {
        "bits_per_byte.png",
        "loss_by_position.png",
        "expert_load.png",
        "expert_pairs.png",
    }


def test_the_memory_of_a_run_on_strings(call: Call, trained: Path, tmp_path: Path) -> None:
    picture = tmp_path / "memory.png"
    assert call("evaluate", trained, "--memory", picture, "--string", "0110").status == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    refused = call("evaluate", trained, "--memory", picture)
    assert "--memory needs the --string that the memory stores" in refused.err
    refused = call("evaluate", trained, "--memory", picture, "--string", "012")
    assert refused.status == 2 and "unknown symbol '2' at position 3" in refused.err


def test_data_prepare(tmp_path, call):
    (tmp_path / "one.txt").write_text("a b c\n" * 100)
    out = tmp_path / "out"
    done = call("data", "prepare", tmp_path / "one.txt", "--tokenizer", "words", "--out", out)
    assert done.status == 0
    assert done.out.splitlines()[:2] == [
        "tokenizer: words, 5 tokens",
        "train: 1 texts, 541 bytes, 361 tokens (1.50 bytes a token)",
    ]
    checked = call("data", "check", out)
    assert (checked.status, checked.out) == (0, f"{out}: every file is what it was\n")
    (out / "test.bin").unlink()
    checked = call("data", "check", out)
    expected = f"text: {out}/test.bin: cannot be read: No such file or directory\n"
    assert (checked.status, checked.out) == (1, expected)
    again = call("data", "prepare", tmp_path / "one.txt", "--out", out)
    assert again.status != 0 and "is there already" in again.err
    for wrong, message in (
        (["--vocab-size", "0"], "--vocab-size must be >= 1, got 0"),
        (["--tokenizer", "wrods"], "unknown tokenizer 'wrods'; did you mean 'words'?"),
    ):
        failed = call("data", "prepare", "x", "--out", tmp_path / "no", *wrong)
        assert (failed.status, failed.err) != (0, "") and message in failed.err
