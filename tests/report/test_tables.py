from pathlib import Path

import pytest

from fastweights.report.cells import Spread, Study, read_study
from fastweights.report.percent import percent, percent_short, percent_spread
from fastweights.report.tables import (
    accuracy_table,
    accuracy_text,
    claim_text,
    configuration,
    configuration_table,
    disagreements,
    horizon_text,
    published_table,
    side_by_side_table,
)
from tests.report.synthetic_study import config, result, write_run


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Parity: SRWM with three seeds, two of them finished; DeltaNet with one. (aa)*: SRWM fails."""
    srwm = tmp_path / "parity" / "srwm"
    write_run(
        srwm / "seed_1",
        config("parity", "srwm", 1),
        result(1.0, 0.9, [1.0, 0.995, 0.9], 100, steps=500, wall_s=61.4),
    )
    write_run(
        srwm / "seed_2",
        config("parity", "srwm", 2),
        result(0.98, 0.7, [1.0, 1.0, 1.0], 150, steps=1500, wall_s=120.0),
    )
    write_run(srwm / "seed_3", config("parity", "srwm", 3), failure="NaN | loss")
    write_run(
        tmp_path / "parity" / "delta_net" / "seed_1",
        config("parity", "delta_net", 1),
        result(0.224, 0.0, [0.1, 0.0, 0.0], 0),
    )
    write_run(tmp_path / "aa_star" / "srwm" / "seed_1", failure="no")
    return read_study(tmp_path)


def test_order_is_that_of_the_paper_not_of_the_folders(study: Study) -> None:
    assert study.languages == ("parity", "aa_star")
    assert study.models == ("delta_net", "srwm")


def test_accuracy_is_mean_and_sample_deviation(study: Study) -> None:
    # Bin 0: 100 and 98 -> mean 99, deviation sqrt(2) = 1.414; Bin 1: 90 and 70 -> 80, 14.142.
    assert (
        accuracy_text(study.cell("parity", "srwm"))
        == "99.0 ± 1.4 / 80.0 ± 14.1 (2, 1 not finished)"
    )
    assert accuracy_text(study.cell("parity", "delta_net")) == "22.4 / 0.0 (1)"
    assert accuracy_text(study.cell("aa_star", "srwm")) == "– (1 not finished)"
    assert accuracy_text(study.cell("aa_star", "delta_net")) == "–"


def test_accuracy_table(study: Study) -> None:
    assert accuracy_table(study).splitlines() == [
        "| model | parity | (aa)\\* |",
        "|:--|:-:|:-:|",
        "| DeltaNet | 22.4 / 0.0 (1) | – |",
        "| SRWM | 99.0 ± 1.4 / 80.0 ± 14.1 (2, 1 not finished) | – (1 not finished) |",
    ]


def test_horizon_is_a_range_over_seeds(study: Study) -> None:
    assert horizon_text(study.cell("parity", "srwm")) == "100 – ≥ 150"
    assert horizon_text(study.cell("parity", "delta_net")) == "none"
    assert horizon_text(study.cell("aa_star", "srwm")) == "–"
    assert study.cell("parity", "srwm").horizon() == {
        50: [1.0, 1.0],
        100: [0.995, 1.0],
        150: [0.9, 1.0],
    }


def test_published_numbers_stand_beside_ours(study: Study) -> None:
    rows = published_table(study).splitlines()
    assert rows[3] == (
        "| SRWM | 100 / 100 [S], generalises [A]; *solves* (T8) | 100 / 100 [S]; *solves* (T8) |"
    )
    assert rows[2].startswith("| DeltaNet | Bin 1 mostly 0 [S]; scaled 0.017 [P]; *fails* (T5) |")
    assert claim_text(None) == "–"


def test_one_language_has_all_in_one_row(tmp_path: Path) -> None:
    write_run(tmp_path / "parity" / "transformer" / "seed_1", None, result(0.4, 0.0, [0.0], 0))
    assert side_by_side_table(read_study(tmp_path)).splitlines()[2] == (
        "| Transformer | 40.0 / 0.0 (1) | 46.4 / 0 [S]; *fails* (T11) | none |"
    )


def test_disagreements_name_what_came_out_otherwise(study: Study) -> None:
    compared, different = disagreements(study)
    assert compared == 2  # (aa)* has no number
    assert different == [
        {
            "language": "parity",
            "model": "srwm",
            "expected": "solves",
            "reasons": "T8",
            "measured": "80.0 ± 14.1",
        }
    ]


def test_configuration_shows_ranges_over_seeds(study: Study) -> None:
    found = configuration(study.cell("parity", "srwm"))
    assert found["heads"] == "4"
    assert found["lr"] == "0.003"
    assert found["parameters"] == "9,539"
    assert found["steps"] == "500 – 1,500"
    assert found["wall time, s"] == "61 – 120"
    assert found["stopped because"] == "validation at 100 %"
    assert configuration(study.cell("aa_star", "srwm"))["dim"] == "–"
    assert len(configuration_table(study).splitlines()) == 2 + 3


def test_a_language_of_the_users_own_is_shown_as_it_is(tmp_path: Path) -> None:
    write_run(tmp_path / "a|b_*" / "my_model" / "seed_1", None, result(1.0, 0.5))
    assert accuracy_table(read_study(tmp_path)).splitlines() == [
        "| model | a\\|b\\_\\* |",
        "|:--|:-:|",
        "| my\\_model | 100.0 / 50.0 (1) |",
    ]


@pytest.mark.parametrize(
    ("accuracy", "text", "short"),
    [
        (1.0, "100.0", "100"),
        (0.9996, "99.96", "99.9"),
        (0.99999, ">99.99", "99.9"),
        (0.9949, "99.5", "99.4"),
        (0.989, "98.9", "98"),
        (0.29, "29.0", "29"),
        (0.01, "1.0", "1"),
        (0.0004, "0.04", "<1"),
        (0.00001, "<0.01", "<1"),
        (0.0, "0.0", "0"),
    ],
)
def test_only_perfect_is_100_and_only_nothing_is_0(accuracy: float, text: str, short: str) -> None:
    assert percent(accuracy) == text
    assert percent_short(accuracy) == short


def test_spread() -> None:
    assert Spread.of([]) is None
    assert Spread.of([0.25]) == Spread(0.25, None, 1)
    two = Spread.of([0.25, 0.75])
    assert two is not None
    assert (two.mean, two.count) == (0.5, 2)
    assert two.std == pytest.approx(0.125**0.5)
    assert percent_spread(0.5, None) == "50.0"
    assert percent_spread(0.5, 0.0) == "50.0 ± 0.0"
    assert percent_spread(0.5, 0.0001) == "50.0 ± <0.1"
