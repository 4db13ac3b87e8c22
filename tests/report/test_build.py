import json
import subprocess
import sys
from pathlib import Path

import pytest

from fastweights.report import build_report
from tests.report.synthetic_study import config, result, write_made_up_study, write_run


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "study"
    write_made_up_study(folder, ["parity", "counter_2"], ["delta_net", "srwm"], [1, 2])
    write_run(folder / "parity" / "srwm" / "seed_3", config("parity", "srwm", 3), failure="a | b")
    return folder


def test_page_says_what_the_folders_say(study: Path) -> None:
    path = build_report(study)
    assert path == study / "report.md"
    page = path.read_text()
    assert page.startswith("# Length generalisation: 2 languages × 2 models × 2 to 3 seeds\n")
    assert "Models were selected on the validation split" in page
    assert "commit 0123456789ab" in page
    assert "started_at" not in page and "2030" not in page
    assert "8 of 9 have a result" in page
    assert "| model | parity | aⁿbⁿ |" in page
    assert "- parity, SRWM, seed 3, failed: a \\| b\n" in page
    assert "```\nfastweights report study\n```" in page
    for name in ("accuracy_heat_map", "horizon_curves", "learning_curves"):
        assert f"({name}.png)" in page
        assert (study / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert not [entry for entry in study.iterdir() if entry.name.startswith(".")]


def test_json_holds_the_numbers_of_the_page(study: Path) -> None:
    build_report(study)
    data = json.loads((study / "report.json").read_text())
    assert len(data["runs"]) == 9
    cells = {(cell["language"], cell["model"]): cell for cell in data["cells"]}
    cell = cells["parity", "srwm"]
    assert (cell["num_runs"], cell["num_done"]) == (3, 2)
    finals = [
        run["result"]["splits"]["bin1"]["sequence_accuracy"]
        for run in data["runs"]
        if (run["language"], run["model"]) == ("parity", "delta_net")
    ]
    bin1 = cells["parity", "delta_net"]["bin1"]
    assert bin1["mean"] == pytest.approx(sum(finals) / 2)
    assert bin1["std"] == pytest.approx(abs(finals[0] - finals[1]) / 2**0.5)
    assert data["failures"] == [
        {"language": "parity", "model": "srwm", "seed": 3, "status": "failed", "error": "a | b"}
    ]
    assert data["environments"][0]["num_runs"] == 9
    assert data["protocols"][0]["selection"] == "validation"


def test_published_protocol_is_named_as_optimistic(tmp_path: Path) -> None:
    outcome = result(1.0, 1.0, protocol="published", selection="bin0+bin1")
    settings = config("parity", "lstm", 1, "published")
    write_run(tmp_path / "parity" / "lstm" / "seed_1", settings, outcome)
    page = build_report(tmp_path).read_text()
    assert "selected on the test bins, as published" in page


def test_same_folders_same_bytes_and_out(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    build_report(study, out)
    files = {path.name: path.read_bytes() for path in out.iterdir()}
    assert set(files) == {
        "report.md",
        "report.json",
        "accuracy_heat_map.png",
        "horizon_curves.png",
        "learning_curves.png",
    }
    assert not (study / "report.md").exists()
    build_report(study, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == files
    assert "fastweights report study --out out" in files["report.md"].decode()


def test_command_is_relative_to_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tmp_path / "study"
    write_run(study / "parity" / "lstm" / "seed_1", failure="no")
    monkeypatch.chdir(tmp_path.parent)
    page = build_report(study).read_text()
    assert f"fastweights report {tmp_path.name}/study\n" in page
    assert str(tmp_path) not in page


def test_report_of_one_run(tmp_path: Path) -> None:
    write_run(
        tmp_path / "run",
        config("parity", "lstm", 4),
        result(1.0, 0.5, [1.0, 0.5], 50),
        curve=[(50, 0.5), (100, 1.0)],
    )
    page = build_report(tmp_path / "run").read_text()
    assert page.startswith("# Length generalisation: parity × LSTM × seed 4\n")
    assert "| LSTM | 100.0 / 50.0 (1) | 100 / 100 [S]; *solves* (T12) | 50 |" in page


def test_report_of_failures_only(tmp_path: Path) -> None:
    write_run(tmp_path / "parity" / "lstm" / "seed_1", failure="disk full")
    page = build_report(tmp_path).read_text()
    assert "- parity, LSTM, seed 1, failed: disk full" in page
    assert ".png" not in page


def test_nan_in_a_result_becomes_null(tmp_path: Path) -> None:
    outcome = result(1.0, 1.0)
    outcome["splits"]["bin1"]["nats_per_token"] = float("nan")
    write_run(tmp_path / "parity" / "lstm" / "seed_1", None, outcome)
    build_report(tmp_path)
    text = (tmp_path / "report.json").read_text()
    assert "NaN" not in text
    splits = json.loads(text)["runs"][0]["result"]["splits"]
    assert splits["bin1"]["nats_per_token"] is None


def test_an_empty_folder_is_an_error_and_gets_no_report(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no runs") as caught:
        build_report(tmp_path, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_reports_need_neither_torch_nor_pyplot(tmp_path: Path) -> None:
    write_run(tmp_path / "parity" / "lstm" / "seed_1", None, result(1.0, 1.0))
    code = (
        "import sys, pathlib; import fastweights.report as r;"
        "assert 'matplotlib' not in sys.modules;"
        "r.build_report(pathlib.Path(sys.argv[1]));"
        "assert not {'torch', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
