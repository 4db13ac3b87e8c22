import io
from pathlib import Path

import pytest
from rich.console import Console

from fastweights.report import length_table
from fastweights.report.length_table import shown_lengths
from tests.report.synthetic_study import config, result, write_made_up_study, write_run


def shown(folder: Path, width: int = 80) -> list[str]:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(length_table(folder))
    return [" ".join(line.split()) for line in console.export_text().splitlines() if line.strip()]


def test_numbers_by_length(tmp_path: Path) -> None:
    cell = tmp_path / "parity" / "srwm"
    write_run(cell / "seed_1", config("parity", "srwm", 1), result(1.0, 1.0, [1.0, 0.5], 50))
    write_run(cell / "seed_2", config("parity", "srwm", 2), result(1.0, 0.984, [1.0, 0.0], 50))
    write_run(
        tmp_path / "parity" / "lstm" / "seed_1", config("parity", "lstm", 1), failure="no memory"
    )
    lines = shown(tmp_path)
    assert " ".join(lines[:2]) == "parity: sequence accuracy, % (1 to 2 seeds)"
    lines = lines[1:]
    assert " ".join(lines[5:]) == "n/m: n of m seeds finished"
    assert lines[1] == "model 2-50 51-100 50 100"
    assert lines[3] == "LSTM 0/1 – – – –"
    assert lines[4] == "SRWM 100 99.2 100 25"


def test_the_demo_fits_80_characters(tmp_path: Path) -> None:
    models = ("delta_net", "delta_net_0_2", "recurrent_delta_net", "srwm")
    write_made_up_study(tmp_path, ["parity"], models, [1])
    lines = shown(tmp_path)
    assert not any("…" in line for line in lines)
    assert lines[-1].startswith("SRWM 100 100 100 100")
    assert lines[1] == "model 2-50 51-100 50 100 150 200 300 400 500 750 1000"


def test_several_languages_are_sections(tmp_path: Path) -> None:
    write_made_up_study(tmp_path, ["counter_2", "parity"], ["lstm"], [1])
    lines = shown(tmp_path)
    assert lines[1].startswith("model Bin 0 Bin 1 50")
    assert [lines[3], lines[5]] == ["parity", "aⁿbⁿ"]


def test_many_lengths_are_thinned_evenly() -> None:
    assert shown_lengths([1, 2, 3], 3) == [1, 2, 3]
    found = shown_lengths(list(range(50, 1701, 50)), 9)
    assert (len(found), found[0], found[-1]) == (9, 50, 1700)
    assert found == sorted(set(found))


def test_no_runs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no runs"):
        length_table(tmp_path)
