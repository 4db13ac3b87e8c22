from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes

from fastweights.experiments import EXPERIMENTS
from fastweights.report.cells import read_study
from fastweights.report.heat_map import heat_map
from fastweights.report.horizon_curves import horizon_curves
from fastweights.report.learning_curves import learning_curves, mean_curve
from fastweights.report.length_curves import lifts
from fastweights.report.style import png, spread_apart, strokes
from tests.report.synthetic_study import config, result, write_made_up_study, write_run


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_heat_map_writes_means_and_deviations(tmp_path: Path) -> None:
    for seed, bin1 in ((1, 0.9), (2, 0.7)):
        write_run(tmp_path / "parity" / "srwm" / f"seed_{seed}", None, result(1.0, bin1))
    write_run(tmp_path / "counter_2" / "srwm" / "seed_1", None, result(0.25, 0.0))
    figure = heat_map(read_study(tmp_path))
    assert figure is not None
    left, right = figure.axes
    assert texts(left) == ["100", "25.0"]
    assert texts(right) == ["80.0", "± 14.1", "0.0"]
    assert [tick.get_text() for tick in left.get_xticklabels()] == ["parity", "$a^{n}b^{n}$"]
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["SRWM"]


def test_heat_map_of_one_language_has_one_panel(tmp_path: Path) -> None:
    write_run(tmp_path / "parity" / "srwm" / "seed_1", None, result(1.0, 0.5))
    write_run(tmp_path / "parity" / "lstm" / "seed_1", None, failure="no")
    figure = heat_map(read_study(tmp_path))
    assert figure is not None
    (axes,) = figure.axes
    assert texts(axes) == ["100", "50.0"]
    labels = [tick.get_text() for tick in axes.get_xticklabels()]
    assert labels == ["Bin 0\nlengths 2–50", "Bin 1\nlengths 51–100"]
    assert len(axes.patches) == 4  # the two of the failed run are hatched


def test_horizon_draws_the_mean_and_shades_the_training_window(tmp_path: Path) -> None:
    for seed, accuracy in ((1, 1.0), (2, 0.5)):
        write_run(
            tmp_path / "counter_2" / "srwm" / f"seed_{seed}",
            config("counter_2", "srwm", seed),
            result(1.0, 1.0, [1.0, accuracy, 0.0], 50),
        )
    figure = horizon_curves(read_study(tmp_path))
    assert figure is not None
    (axes,) = figure.axes
    curve = axes.lines[0]
    assert np.asarray(curve.get_xdata()).tolist() == [50, 100, 150]
    assert np.asarray(curve.get_ydata()).tolist() == [100, 75, 0]
    assert axes.get_xscale() == "log"
    shade = axes.patches[0].get_bbox()  # type: ignore[attr-defined]
    assert shade.x1 == 100  # trained on lengths 2 to 100
    assert "SRWM" in texts(axes)


def test_lines_that_coincide_are_set_apart_and_others_stay() -> None:
    found = lifts(
        {
            "a": {50: 1.0, 100: 1.0},
            "b": {50: 0.5, 100: 0.2},
            "c": {50: 0.995, 100: 0.7},
            "d": {50: 0.9, 200: 1.0},
        }
    )
    assert found == {"a": pytest.approx(0.5), "b": 0, "c": pytest.approx(-0.5), "d": 0}


def test_mean_curve_keeps_the_last_value_of_a_seed_that_stopped() -> None:
    fast, slow = ([50, 100], [0.5, 1.0]), ([50, 100, 150], [0.0, 0.0, 0.5])
    assert mean_curve([fast, slow]) == ([50, 100, 150], [0.25, 0.5, 0.75])
    # Steps that one seed did not measure take its latest value; nothing before both have begun.
    assert mean_curve([([50, 150], [0.0, 1.0]), ([100], [0.5])]) == ([100, 150], [0.25, 0.75])


def test_learning_curves_take_bin_1_where_there_is_no_validation(tmp_path: Path) -> None:
    place = tmp_path / "parity" / "lstm" / "seed_1"
    write_run(place, None, result(1.0, 1.0), curve=[(0, 0.0), (50, 0.5), (100, 1.0)], split="bin1")
    figure = learning_curves(read_study(tmp_path))
    assert figure is not None
    (axes,) = figure.axes
    assert axes.get_ylabel() == "Bin 1 accuracy, %"
    assert np.asarray(axes.lines[0].get_xdata()).tolist() == [50, 100]
    assert np.asarray(axes.lines[0].get_ydata()).tolist() == [50, 100]


def test_nothing_measured_gives_no_figure(tmp_path: Path) -> None:
    write_run(tmp_path / "parity" / "lstm" / "seed_1", None, failure="no")
    study = read_study(tmp_path)
    assert heat_map(study) is horizon_curves(study) is learning_curves(study) is None


def test_a_model_keeps_its_colour_whatever_the_study_holds() -> None:
    alone, together = strokes(["srwm"]), strokes(["lstm", "srwm", "zzz", "own"])
    assert alone["srwm"] == together["srwm"]
    assert len({stroke.colour for stroke in together.values()}) == 4


def test_every_model_of_the_largest_study_has_its_own_stroke() -> None:
    models = EXPERIMENTS["language_models"].models
    assert len(models) == 15
    drawn = {(stroke.colour, stroke.marker) for stroke in strokes(models).values()}
    assert len(drawn) == 15


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_figures_of_any_number_of_languages(tmp_path: Path, count: int) -> None:
    """One panel a language and one for the legend, every language's title there."""
    names = ["parity", "aa_star", "counter_3", "dyck_1", "own", "a$b", "c_d", "(ab)*"][:count]
    write_made_up_study(tmp_path, names, ["lstm", "own"], [1])
    study = read_study(tmp_path)
    for figure in (horizon_curves(study), learning_curves(study)):
        assert figure is not None
        titled = [axes for axes in figure.axes if axes.get_title("left")]
        assert len(titled) == count
        assert sum(axes.get_legend() is not None for axes in figure.axes) == (count > 1)


def test_png_is_the_same_every_time(tmp_path: Path) -> None:
    write_made_up_study(tmp_path, ["parity"], ["lstm"], [1])
    first, second = (heat_map(read_study(tmp_path)) for _ in range(2))
    assert first is not None and second is not None
    assert png(first) == png(second)


def test_spread_apart() -> None:
    assert spread_apart([10, 50], 5, 0, 100) == [10, 50]
    top, below, low = spread_apart([100, 100, 0], 6, 0, 100)
    assert top == pytest.approx(100)
    assert below == pytest.approx(94)
    assert low == 0
    crowded = spread_apart([50.0] * 5, 30, 0, 100)
    assert crowded == pytest.approx([100, 75, 50, 25, 0])  # equal ones: the first on top
