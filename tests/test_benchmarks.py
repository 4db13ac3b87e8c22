"""The benchmark's machinery, on tiny shapes: nothing here says how fast anything is."""

import importlib
import json
import os
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from benchmarks import cpu_kernels, generation, language_model_speed, peers, retrieval
from benchmarks.candidates import CANDIDATES, CHUNK, HUGGING_FACE, OURS, SDPA, STEPS, Candidate
from benchmarks.inputs import make_inputs
from benchmarks.memory import MemoryMeter, NotMeasured
from benchmarks.page import page
from benchmarks.passes import BOTH, FORWARD, PASSES, Ready, compare
from benchmarks.questions import QUESTIONS, plan
from benchmarks.records import FILE, Measurements, Row, Unit, begin, load
from benchmarks.shapes import flops, shape
from benchmarks.spread import growth, ratio, spread
from benchmarks.targets import TARGETS, verdicts
from benchmarks.timing import Contender, measure
from benchmarks.training import BEFORE, MODELS, STEP, contender_name, served_by
from fastweights.experiments import EXPERIMENTS
from fastweights.models.associative_memory import AssociativeMemory
from fastweights.models.menu import SEQUENCE_LAYERS
from fastweights.train.retrieval import RetrievalProblem

RESULTS = Path(__file__).parents[1] / "results" / "cpu-kernels"
Keep = Callable[..., None]
ALL_CANDIDATES = [
    pytest.param(name, each, id=f"{name}: {each.name}")
    for name, found in CANDIDATES.items()
    for each in found
]


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Keep:
    """only(*ids): the command measures these units alone."""

    def keep(*ids: str) -> None:
        def chosen(*arguments: Any) -> list[Unit]:
            return [unit for unit in plan(*arguments) if unit.id in ids]

        monkeypatch.setattr(cpu_kernels, "plan", chosen)

    return keep


@pytest.fixture
def no_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the extra were not installed."""

    def not_there(name: str) -> NoReturn:
        raise PackageNotFoundError(name)

    def import_module(name: str) -> NoReturn:
        raise ModuleNotFoundError(name=name.partition(".")[0])

    peers._fla_module.cache_clear()
    monkeypatch.setattr(peers, "distribution", not_there)
    monkeypatch.setattr(peers, "import_module", import_module)


LINEAR, E_LSTM = "linear_attention/b2-h2-t64-d16/1_thread", "e_lstm/b2-t50-d64/1_thread"


def test_the_command_writes_json_and_a_report(
    tmp_path: Path, only: Keep, no_peers: None, capsys: pytest.CaptureFixture[str]
) -> None:
    only(LINEAR, E_LSTM)
    assert cpu_kernels.main(["--quick", "--rounds", "3", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'report.md'}\n"
    data = json.loads((tmp_path / FILE).read_text("utf-8"))
    assert [unit["id"] for unit in data["units"]] == [LINEAR, E_LSTM]
    assert {"commit", "dirty", "device_name", "memory_gib", "versions"} <= data[
        "environment"
    ].keys()
    measured = load(tmp_path / FILE)
    for unit in measured.units:
        ours = unit.row(OURS)
        assert ours is not None
        assert {which: len(ms) for which, ms in ours.ms.items()} == dict.fromkeys(PASSES, 3)
        assert all(ms is not None and ms > 0 for which in ours.ms.values() for ms in which)
    chunk = measured.units[0].row(CHUNK)
    assert chunk is not None
    assert chunk.output_error is not None and chunk.output_error < 1e-5
    assert chunk.gradient_error is not None and chunk.gradient_error < 1e-5
    report = (tmp_path / "report.md").read_text("utf-8")
    assert "A quick run" in report and "not measured" in report
    assert (tmp_path / "speedups.png").read_bytes().startswith(b"\x89PNG")


def test_missing_peers_are_named(tmp_path: Path, only: Keep, no_peers: None) -> None:
    only("delta_rule/b2-h2-t64-d16/1_thread")
    assert cpu_kernels.main(["--quick", "--rounds", "1", "--out", str(tmp_path)]) == 0
    (unit,) = load(tmp_path / FILE).units
    assert {row.name for row in unit.rows if row.left_out} == {
        each.name for each in CANDIDATES["delta_rule"] if each.name.startswith(("fla", "Hugging"))
    }
    report = (tmp_path / "report.md").read_text("utf-8")
    assert "missing / missing" in report
    assert f"- {HUGGING_FACE}, forward: missing: transformers is not installed" in report


def test_an_interrupted_run_goes_on(
    tmp_path: Path, only: Keep, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    only(LINEAR, E_LSTM)
    done: list[str] = []

    def run(unit: Unit, *_: Any) -> Unit:
        if done == [LINEAR]:
            done.append("interrupted")
            raise KeyboardInterrupt
        done.append(unit.id)
        return unit.model_copy(update={"wall_s": 1.0 + len(done)})

    monkeypatch.setattr(cpu_kernels, "run_unit", run)
    command = ["--quick", "--out", str(tmp_path)]
    assert cpu_kernels.main(command) == 130
    assert "the same command goes on" in capsys.readouterr().err
    first = load(tmp_path / FILE).units
    assert cpu_kernels.main(command) == 0
    assert done == [LINEAR, "interrupted", E_LSTM]
    assert load(tmp_path / FILE).units[0] == first[0]
    assert cpu_kernels.main([*command, "--fresh"]) == 0
    assert done[3:] == [LINEAR, E_LSTM]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--questions", "delta_rul"], "did you mean 'delta_rule'"),
        (["--rounds", "0"], "'0'"),
        (["--rounds", "many"], "'many'"),
        (["--threads", "9999"], "--threads 9999"),
        (["--fast"], "unknown option --fast"),
        (["--out", "{folder}/file"], "is not a folder"),
        (["--out", "{folder}/nowhere", "--render"], "No such file"),
        (["--out", "{folder}/damaged"], "damaged"),
        (["--out", "{folder}/wrong", "--render"], "units.0.threads"),
        (["--out", "{folder}/other"], "rounds 77"),
        (["--render", "--rounds", "3"], "--rounds with --render"),
        (["--fresh", "--render"], "--fresh with --render"),
    ],
)
def test_wrong_input_is_one_line(
    tmp_path: Path, only: Keep, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    only()
    (tmp_path / "file").touch()
    for name in ("damaged", "wrong", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "damaged" / FILE).write_text("{")
    good = json.loads(begin(cpu_kernels.QUICK).model_dump_json())
    unit = {"id": "x", "question": "e_lstm", "kind": "time", "shape": None, "threads": "one"}
    (tmp_path / "wrong" / FILE).write_text(json.dumps({**good, "units": [unit]}))
    good["settings"]["rounds"] = 77
    (tmp_path / "other" / FILE).write_text(json.dumps(good))
    try:
        status: object = cpu_kernels.main(
            ["--quick", *(word.format(folder=tmp_path) for word in words)]
        )
    except SystemExit as stop:
        status = stop.code
    error = capsys.readouterr().err
    assert status in (1, 2)
    assert error.startswith("fastweights: error: ") and error.count("\n") == 1
    assert said in error


@pytest.mark.parametrize(("question", "candidate"), ALL_CANDIDATES)
def test_candidates_compute_the_same(question: str, candidate: Candidate) -> None:
    """Outputs and gradients, in the common layout and scale; attention is another function."""
    first = QUESTIONS[question].shapes[0].shrunk()
    inputs = make_inputs(question, first)
    try:
        got, _ = Ready(candidate, inputs).answer(PASSES)
    except peers.PeerMissing as missing:
        pytest.skip(str(missing))
    assert set(got.gradients) == set(candidate.arguments)
    if candidate.reference is None:
        assert got.y.isfinite().all()
        return
    reference = next(each for each in CANDIDATES[question] if each.name == candidate.reference)
    want, _ = Ready(reference, inputs).answer(PASSES)
    errors = compare(got, want)
    assert errors.output is not None and errors.output < 1e-5
    assert errors.gradient is not None and errors.gradient < 1e-5


def test_comparing_tells_what_is_not_finite() -> None:
    inputs = make_inputs("e_lstm", shape(2, None, 3, 4))
    want, _ = Ready(CANDIDATES["e_lstm"][0], inputs).answer((FORWARD,))
    nan = want._replace(y=want.y * torch.nan)
    assert compare(nan, want) == (float("inf"), None)


def test_turns_alternate_and_slow_ones_have_fewer() -> None:
    said: list[str] = []

    def contender(name: str, seconds: float) -> Contender:
        return Contender(name, {FORWARD: lambda: said.append(name)}, {FORWARD: seconds}, 1)

    contenders = [contender("quick", 1e-6), contender("slow", 3.0), contender("slowest", 1e3)]
    times = measure(contenders, (FORWARD,), 6, 0.0, lambda _: None)
    rounds = {
        name: [number for number, ms in enumerate(found[FORWARD]) if ms is not None]
        for name, found in times.items()
    }
    assert rounds == {"quick": [0, 1, 2, 3, 4, 5], "slow": [1, 2, 4, 5], "slowest": [1, 3, 5]}
    assert said[:4] == ["quick", "slowest", "slow", "quick"]


def test_ratios_are_taken_within_rounds() -> None:
    rows = (
        Row(name=OURS, ms={FORWARD: (1.0, 2.0, 4.0)}),
        Row(name=SDPA, ms={FORWARD: (3.0, None, 8.0)}),
    )
    unit = plan(["delta_rule"], [1], quick=False)[0].model_copy(update={"rows": rows})
    found = ratio(unit, SDPA, OURS, FORWARD)
    assert found is not None
    assert (found.median, found.least, found.rounds) == (2.5, 2.0, 2)
    assert ratio(unit, CHUNK, OURS, FORWARD) is None and spread([]) is None
    assert flops("delta_rule", shape(2, 3, 5, 7), BOTH) == 20 * 2 * 3 * 5 * 49
    assert growth([(x, 3.0 * x**2) for x in (1.0, 2.0, 4.0)]) == pytest.approx(2.0)


def synthetic() -> Measurements:
    """A run in full: ours takes 1 ms and 100 MiB, everybody else 8 ms and 800 MiB."""
    units = []
    for unit in plan(list(QUESTIONS), (1, 2), quick=False):
        if unit.question == "training":
            names = [contender_name(model, when) for model in MODELS for when in (BEFORE, "after")]
            passes: tuple[str, ...] = (STEP,)
        else:
            names = [each.name for each in CANDIDATES[unit.question]]
            passes = PASSES
        rows = []
        for number, name in enumerate(names):
            ms = 1.0 if number == 0 else 8.0
            timed = dict.fromkeys(passes, (ms, 1.1 * ms, 0.9 * ms))
            weighed = unit.kind == "memory"
            rows.append(Row(name=name, peak_mib=100 * ms) if weighed else Row(name=name, ms=timed))
        units.append(unit.model_copy(update={"rows": tuple(rows)}))
    return begin(cpu_kernels.FULL).model_copy(update={"units": tuple(units)})


def test_targets_are_met_or_not() -> None:
    measured = synthetic()
    found = {(v.target.question, v.target.against, v.required): v.met for v in verdicts(measured)}
    assert len(verdicts(measured)) == 2 * len(TARGETS) - 1
    assert found["delta_rule", SDPA, 6] is True
    assert found["delta_rule", SDPA, 18] is False
    assert found["self_reference", STEPS, 8] is True
    assert found["self_reference", "memory", 1024] is True
    assert found["delta_rule", "GEMM rate", 0.70] is None
    assert {v.met for v in verdicts(begin(cpu_kernels.FULL))} == {None}


def test_the_report_of_a_full_run(tmp_path: Path) -> None:
    measured = synthetic()
    cpu_kernels.write_report(measured, tmp_path)
    report = (tmp_path / "report.md").read_text("utf-8")
    assert "A quick run" not in report and str(Path.home()) not in report
    for name, question in QUESTIONS.items():
        assert f"## {question.title}\n" in report
        for size in (*question.shapes, *question.large):
            assert (f"| T {size.time:,} |" if name == "scaling" else f"| {size} |") in report
    assert "8.00× (8.00–8.00) / 8.00× (8.00–8.00)" in report
    assert "| ≥ 18× | 8.00× (8.00–8.00) | **not met** |" in report
    for name in ("speedups.png", "scaling.png"):
        assert f"({name})" in report
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_the_committed_report_can_be_made_again() -> None:
    measured = load(RESULTS / FILE)
    drawn = [name for name in ("speedups.png", "scaling.png") if (RESULTS / name).exists()]
    assert page(measured, drawn) == (RESULTS / "report.md").read_text("utf-8")


def test_layers_without_kernels_for_the_time_being() -> None:
    module = importlib.import_module("fastweights.ops.delta_rule")
    arguments = "auto", "delta_rule", torch.device("cpu"), torch.float32
    usual = module.resolve_backend(*arguments)
    with served_by("torch"):
        assert module.resolve_backend(*arguments) == "torch"
    assert module.resolve_backend(*arguments) == usual
    with served_by("auto"):
        assert module.resolve_backend(*arguments) == usual


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_peak_memory_is_that_of_the_pass() -> None:
    """Outputs and gradients at least, and nothing like the process as a whole."""
    size = shape(2, 2, 4096, 64)
    tensor_mib = 2 * 2 * 4096 * 64 * 4 / 2**20
    meter = MemoryMeter([])
    peak = meter.peak_mib("scaling", "linear attention, chunk form", size)
    assert 3 * tensor_mib < peak < 20 * tensor_mib
    with pytest.raises(NotMeasured, match="nobody"):
        meter.peak_mib("scaling", "nobody", size)


def test_more_threads_than_cores_are_left_out() -> None:
    assert cpu_kernels._threads(None) == [n for n in (1, 2) if n <= (os.cpu_count() or 1)]


@pytest.mark.parametrize(("task", "model"), retrieval.CELLS)
def test_the_official_form_of_retrieval_computes_the_same(task: str, model: str) -> None:
    (cell,) = EXPERIMENTS["retrieval"].cells(
        [task], [model], overrides={"training": {"batch_size": 2}}
    )
    problem = RetrievalProblem(cell.config, torch.device("cpu"))
    losses = []
    for form in (AssociativeMemory, retrieval.OfficialForm):
        memory = problem.build_model()
        memory.__class__ = form
        losses.append(problem.training_loss(memory, 0).loss)
    torch.testing.assert_close(*losses)


def test_training_speed_of_language_models(tmp_path: Path) -> None:
    """Every layer at every context, beside softmax attention."""
    assert language_model_speed.main(["--quick", "--out", str(tmp_path)]) == 0
    measured = json.loads((tmp_path / "training_speed.json").read_text())
    assert list(measured["ms"]) == ["16", "32"]
    for by_layer in measured["ms"].values():
        assert list(by_layer) == list(SEQUENCE_LAYERS)
        assert all(len(rounds) == 2 and min(rounds) > 0 for rounds in by_layer.values())
    page = (tmp_path / "training_speed.md").read_text()
    assert page.count("| delta_net |") == 2
    assert page.count("| softmax_attention |") == 1


@pytest.mark.parametrize("benchmark", [language_model_speed, generation])
def test_a_folder_that_cannot_be_is_told_before_measuring(
    tmp_path: Path, benchmark: Any, capsys: Any
) -> None:
    (tmp_path / "file").touch()
    assert benchmark.main(["--quick", "--out", str(tmp_path / "file" / "below")]) == 1
    printed = capsys.readouterr().err
    assert printed == f"fastweights: error: {tmp_path / 'file' / 'below'}: Not a directory\n"


def test_generation_tells_sizes_and_speeds(tmp_path: Path) -> None:
    assert generation.main(["--quick", "--out", str(tmp_path)]) == 0
    measured = json.loads((tmp_path / "generation.json").read_text("utf-8"))
    size = {(row["name"], row["context"]): row.get("state_mib") for row in measured["rows"]}
    assert size["delta_net", 16] == size["delta_net", 64]
    assert size["softmax_attention", 64] == 4 * size["softmax_attention", 16]
    assert "| 64 | " in (tmp_path / "generation.md").read_text("utf-8")
