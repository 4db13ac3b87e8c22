import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from fastweights.experiments.recall import MODELS, config
from fastweights.report import build_report, length_table
from fastweights.report.cells import read_study
from fastweights.report.names import RECALL_MODEL_NAMES
from fastweights.report.recall.figure import accuracy_curves, training_lengths
from fastweights.report.recall.tables import PAIRS, accuracy_table, differences
from fastweights.report.style import strokes
from tests.report.synthetic_recall import write_recall
from tests.report.synthetic_study import config as formal_config
from tests.report.synthetic_study import result, write_run

DELTA, LINEAR, SOFTMAX = "delta_net_conv", "linear_transformer_conv", "softmax_attention_conv"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """DeltaNet with two seeds, the linear Transformer with one of two, softmax not finished."""
    folder = tmp_path / "study"
    write_recall(folder, DELTA, [1.0, 0.9, 0.4], seed=1)
    write_recall(folder, DELTA, [1.0, 0.7, 0.2], seed=2)
    write_recall(folder, LINEAR, [0.9, 0.5, 0.45], seed=2)
    write_run(folder / "recall_1024" / LINEAR / "seed_1", failure="disk full")
    settings = config("recall_1024", SOFTMAX, 1, {}).model_dump(mode="json")
    write_run(folder / "recall_1024" / SOFTMAX / "seed_1", settings)
    return folder


def test_every_model_of_the_study_has_a_name_and_a_look_of_its_own() -> None:
    assert set(RECALL_MODEL_NAMES) == set(MODELS) > {model for pair in PAIRS for model in pair}
    drawn = strokes(list(MODELS)).values()
    assert len({stroke.colour for stroke in drawn}) == len({s.marker for s in drawn}) == 5


def test_table_by_hand(study: Path) -> None:
    found = read_study(study)
    assert found.models == (SOFTMAX, LINEAR, DELTA)
    assert accuracy_table(found, "recall_1024").splitlines()[2:] == [
        "| softmax attention | 0 of 1 | – | – | – |",
        "| linear Transformer | 1 of 2 | 90.0 | 50.0 | 45.0 |",
        "| DeltaNet | 2 | 100.0 ± 0.0 | 80.0 ± 14.1 | 30.0 ± 14.1 |",
        "| DeltaNet less linear Transformer | 1 | +10.0 | +20.0 | -25.0 |",
    ]


def test_differences_are_of_the_same_seed_and_length(tmp_path: Path) -> None:
    write_recall(tmp_path, DELTA, [0.75, 0.5], seed=1)
    write_recall(tmp_path, DELTA, [1.0, 1.0], seed=3)
    write_recall(tmp_path, LINEAR, [0.5, 0.75, 1.0], seed=1)
    write_recall(tmp_path, LINEAR, [0.0], seed=2)
    assert differences(read_study(tmp_path), "recall_1024", PAIRS[0]) == {64: [0.25], 256: [-0.25]}


def test_page_and_json_of_a_study(study: Path) -> None:
    page = build_report(study).read_text(encoding="utf-8")
    assert page.startswith("# Multi-query associative recall: recall\\_1024 × 3 models × 1 to 2 ")
    trained = config("recall_1024", DELTA, 1, {}).task.model_dump()["lengths"]
    assert f"Trained on lengths {', '.join(map(str, trained))}." in page
    assert "![Accuracy by length](recall_curves.png)" in page
    assert "- recall\\_1024, linear Transformer, seed 1, failed: disk full" in page
    data = json.loads((study / "report.json").read_text(encoding="utf-8"))
    cells = {cell["model"]: cell for cell in data["cells"]}
    assert cells[DELTA]["lengths"] == [64, 256, 1024]
    assert cells[DELTA]["accuracy"][1]["mean"] == pytest.approx(0.8)
    (difference,) = data["differences"]
    assert [each["mean"] for each in difference["accuracy"]] == pytest.approx([0.1, 0.2, -0.25])
    before = {path.name: path.read_bytes() for path in study.iterdir() if path.is_file()}
    assert before.keys() == {"report.md", "report.json", "recall_curves.png"}
    build_report(study)
    assert before == {path.name: path.read_bytes() for path in study.iterdir() if path.is_file()}


def test_several_tasks_have_a_table_and_a_panel_each(study: Path) -> None:
    write_recall(study, DELTA, [1.0], task="recall_8192")
    page = build_report(study).read_text(encoding="utf-8")
    assert "2 tasks × 3 models" in page
    assert page.index("### recall\\_1024") < page.index("### recall\\_8192")
    figure = accuracy_curves(read_study(study))
    assert figure is not None
    titles = [axes.get_title("left") for axes in figure.axes]
    assert titles[:2] == ["recall_1024", "recall_8192"]


def test_figure_draws_means_and_shades_what_was_trained(study: Path) -> None:
    figure = accuracy_curves(read_study(study))
    assert figure is not None
    (axes,) = figure.axes
    heights = [np.asarray(line.get_ydata()).tolist() for line in axes.lines]
    assert heights[0][1:] == [50.0, 45.0] and heights[1] == pytest.approx([100, 80, 30])
    lengths = training_lengths(read_study(study), "recall_1024")
    assert axes.patches[0].get_bbox().x1 == lengths[-1]  # type: ignore[attr-defined]


def test_training_lengths_that_differ_are_not_told(study: Path) -> None:
    assert training_lengths(read_study(study), "recall_1024")
    other = config("recall_1024", SOFTMAX, 2, {"task": {"lengths": [8]}}).model_dump(mode="json")
    write_run(study / "recall_1024" / SOFTMAX / "seed_2", other)
    assert training_lengths(read_study(study), "recall_1024") == []
    assert "Trained on" not in build_report(study).read_text(encoding="utf-8")


def test_terminal(study: Path) -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(length_table(study))
    lines = [" ".join(line.split()) for line in console.export_text().splitlines() if line.strip()]
    assert "model 64 256 1024" in lines
    assert "linear Transformer 1/2 90 50 45" in lines
    assert "DeltaNet 100 80 30" in lines


def test_one_run_and_no_result(study: Path, tmp_path: Path) -> None:
    place = study / "recall_1024" / DELTA / "seed_2"
    page = build_report(place, tmp_path / "out").read_text(encoding="utf-8")
    assert page.startswith("# Multi-query associative recall: recall\\_1024 × DeltaNet × seed 2\n")
    assert "| DeltaNet | 1 | 100.0 | 70.0 | 20.0 |" in page
    unfinished = study / "recall_1024" / SOFTMAX / "seed_1"
    page = build_report(unfinished, tmp_path / "out").read_text(encoding="utf-8")
    assert "unfinished: no result.json" in page and ".png" not in page


def test_a_result_whose_lengths_do_not_fit_is_told(tmp_path: Path) -> None:
    place = write_recall(tmp_path, DELTA, [0.5, 0.5])
    outcome = json.loads((place / "result.json").read_text())
    outcome["by_length"]["lengths"] = [64]
    (place / "result.json").write_text(json.dumps(outcome))
    page = build_report(tmp_path).read_text(encoding="utf-8")
    assert "result.json: by\\_length: Value error, 1 lengths but 2 accuracies" in page


def test_recall_beside_a_formal_language_is_refused(study: Path) -> None:
    settings = formal_config("parity", "lstm", 1)
    write_run(study / "parity" / "lstm" / "seed_1", settings, result(1.0, 1.0))
    with pytest.raises(ValueError, match="about formal languages or about recall, not both") as one:
        build_report(study)
    assert "\n" not in str(one.value)
