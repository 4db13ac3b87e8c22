import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console

from fastweights.experiments.retrieval import MODELS, RETRIEVAL, config
from fastweights.report import build_report, length_table, read_runs
from fastweights.report.retrieval import floor as floor_module
from fastweights.report.retrieval.agreement import (
    Share,
    SingleRuns,
    agrees,
    compare,
    orders,
    overall,
    shares,
    single_runs,
)
from fastweights.report.retrieval.floor import (
    below_floor,
    bound,
    floor,
    published_below_floor,
)
from fastweights.report.retrieval.memory import MEMORY_NAMES, memory_key, num_features, standard_key
from fastweights.report.retrieval.published import CUT_SHORT, published_losses
from fastweights.report.retrieval.size_figure import loss_by_size
from fastweights.report.retrieval.step_figure import curve_size, loss_by_step
from fastweights.report.retrieval.strokes import memory_strokes
from fastweights.report.retrieval.study import RetrievalStudy, arrange, final_loss
from fastweights.report.retrieval.tables import loss_tables, loss_text, steps_text
from tests.report.synthetic_retrieval import write_failed, write_memory
from tests.report.synthetic_study import config as formal_config
from tests.report.synthetic_study import result, write_run

FIGURES = {"capacity", "capacity_curves", "update_rules", "update_rule_curves"}


def study_of(folder: Path) -> RetrievalStudy:
    return arrange(read_runs(folder))


def report_of(folder: Path) -> tuple[str, dict[str, Any]]:
    page = build_report(folder).read_text(encoding="utf-8")
    return page, json.loads((folder / "report.json").read_text(encoding="utf-8"))


def model_section(model: str, **overrides: Any) -> dict[str, Any]:
    return config("unique_20", model, 1, {"model": overrides}).model_dump(mode="json")["model"]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Published at S = 200: softmax 0.000009, ELU+1 0.343, DPFP-1 0.175; delta DPFP-1 at 20:
    0.0008, sum DPFP-1 0.105, delta FAVOR+ 64 at 40: diverged."""
    folder = tmp_path / "study"
    write_memory(folder, "unique_200", "softmax", 0.0004)
    write_memory(folder, "unique_200", "sum_elu_plus_one", 0.35, steps=2400)
    write_memory(folder, "unique_200", "sum_dpfp_1", 0.36, steps=300)
    write_memory(folder, "unique_40", "sum_favor_128_scaled", 0.14)
    write_memory(folder, "repeated_20", "delta_dpfp_1", 0.0009)
    write_memory(folder, "repeated_20", "sum_dpfp_1", 0.118)
    write_failed(folder, "repeated_40", "delta_favor_64", "the loss is nan at step 812; no | kept")
    write_failed(folder, "repeated_40", "sum_dpfp_1", "disk full")
    return folder


# --- the published losses -------------------------------------------------------------------------


def test_published_losses_are_all_there() -> None:
    losses = published_losses().values()
    assert len(losses) == 320
    assert sum(loss.counts for loss in losses) == 200
    assert {loss.model for loss in losses} <= MODELS.keys()
    assert set(MODELS) - {loss.model for loss in losses} == {"sum_favor_128_scaled"}
    assert {loss.model for loss in losses} <= MEMORY_NAMES.keys()
    assert MODELS.keys() <= MEMORY_NAMES.keys()
    for cell in RETRIEVAL.cells():
        setting = 2 if cell.task.startswith("repeated") else 1
        known = (setting, int(cell.task.split("_")[1]), cell.model) in published_losses()
        assert known == (cell.model != "sum_favor_128_scaled")


def test_published_losses_of_the_paper() -> None:
    losses = published_losses()
    assert losses[1, 20, "sum_dpfp_1"][3:] == (100, 0.0007829439, 0.0007829439)
    assert losses[1, 600, "softmax"].loss == pytest.approx(0.0536, abs=5e-5)
    assert losses[2, 200, "clamped_delta_tanh"].loss == pytest.approx(96.9, abs=0.05)
    assert math.isnan(losses[2, 200, "delta_favor_128"].loss)
    cut = losses[CUT_SHORT]
    assert cut.steps == 300
    assert cut.loss == pytest.approx(0.0854, abs=1e-4)


# --- memories -------------------------------------------------------------------------------------


def test_configurations_name_their_memory() -> None:
    for model in MODELS:
        assert memory_key(model_section(model)) == model
        assert standard_key(model_section(model)) == model
    assert memory_key(model_section("sum_dpfp_1", dpfp_nu=4)) == "sum_dpfp_4"


def test_another_setting_is_not_the_published_memory() -> None:
    assert standard_key(model_section("sum_dpfp_1", head_dim=32)) is None
    assert standard_key(model_section("sum_favor_64", favor_redraw=False)) is None
    assert standard_key(model_section("delta_dpfp_1", feature_normalization="none")) is None
    assert standard_key({"rule": "softmax", "no_such": 1}) is None


def test_number_of_features() -> None:
    found = {model: num_features(model_section(model)) for model in MODELS}
    assert found["softmax"] is None
    assert found["sum_elu_plus_one"] == found["delta_elu_plus_one"] == 64
    assert [found[f"sum_dpfp_{nu}"] for nu in (1, 2, 3)] == [128, 256, 384]
    assert found["sum_favor_512"] == 1024
    assert num_features(model_section("sum_dpfp_2", head_dim=10)) == 40
    assert num_features({}) is None


def test_no_two_memories_of_a_setting_look_the_same() -> None:
    for task in ("unique_20", "repeated_20"):
        models = [cell.model for cell in RETRIEVAL.cells(tasks=[task])]
        for names in (models, [*models, "own"]):
            strokes = memory_strokes(names)
            assert len({stroke.colour for stroke in strokes.values()}) == len(names)
            assert len({stroke.marker for stroke in strokes.values()}) == len(names)


# --- agreement ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "published", "same"),
    [
        (0.0105, 0.001, True),
        (0.0111, 0.001, False),
        (0.229, 0.2, True),
        (0.231, 0.2, False),
        (0.171, 0.2, True),
        (0.169, 0.2, False),
        (0.5, math.nan, False),
        (math.nan, 0.5, False),
        (math.nan, math.nan, True),
    ],
)
def test_agreement_is_within_15_percent_or_a_hundredth(
    ours: float, published: float, same: bool
) -> None:
    assert agrees(ours, published) == same


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (0.001, 0.0099, 0),
        (0.001, 0.0101, -1),
        (0.2, 0.235, 0),
        (0.2, 0.24, -1),
        (0.4, 0.2, 1),
        (math.nan, 0.5, 1),
        (0.5, math.nan, -1),
        (math.nan, math.nan, 0),
    ],
)
def test_order_of_two_losses(one: float, other: float, expected: int) -> None:
    assert compare(one, other) == expected
    assert compare(other, one) == -expected


def test_shares_count_by_hand(study: Path) -> None:
    found = study_of(study)
    # Softmax, ELU+1, delta and sum DPFP-1 at 20 agree (0.118 is 12.6 % above 0.105); DPFP-1 at 200
    # does not; FAVOR+ diverged as published, and does not count; the scaled one is not published.
    total = overall(found)
    assert (total.num_published, total.num_compared, total.num_agreeing) == (200, 5, 4)
    assert total.share == 0.8
    by_model = shares(found)
    assert len(by_model) == 16
    assert by_model[1, "sum_dpfp_1"] == Share(30, 1, 0)
    assert by_model[2, "sum_dpfp_1"].num_published == 10
    assert by_model[2, "delta_favor_64"].share == 1.0
    assert by_model[2, "clamped_delta_tanh"].share is None


def test_single_runs_by_hand(tmp_path: Path) -> None:
    # Published: 0.105. 0.1 and 0.11 agree with it and with each other, 0.5 with neither.
    for seed, loss in enumerate((0.1, 0.11, 0.5), start=1):
        write_memory(tmp_path, "repeated_20", "sum_dpfp_1", loss, seed=seed)
    write_memory(tmp_path, "repeated_40", "sum_dpfp_1", 0.114)
    write_memory(tmp_path, "repeated_20", "clamped_delta_tanh", 1.7)
    assert single_runs(study_of(tmp_path)) == SingleRuns(4, 3, 6, 2)


def test_order_reports_what_is_reversed(study: Path) -> None:
    write_memory(study, "unique_200", "sum_dpfp_2", 0.5)
    at_20, at_200 = sorted(orders(study_of(study)), key=lambda order: order.num_keys)
    assert (at_20.setting, at_20.reversed_pairs, at_20.tied_once) == (2, (), 0)
    # Published: DPFP-2 < DPFP-1 < ELU+1. Ours: ELU+1 = DPFP-1 < DPFP-2, and softmax below DPFP-2.
    assert at_200.reversed_pairs == (
        ("sum_dpfp_2", "sum_elu_plus_one"),
        ("sum_dpfp_2", "sum_dpfp_1"),
    )
    assert at_200.tied_once == 2  # ELU+1 and DPFP-1 here, softmax and DPFP-2 there


def test_what_diverged_as_published_has_no_place_in_the_order(tmp_path: Path) -> None:
    write_memory(tmp_path, "repeated_40", "delta_favor_64", 0.15)
    write_memory(tmp_path, "repeated_40", "sum_dpfp_1", 0.3)
    write_memory(tmp_path, "repeated_40", "delta_dpfp_1", 0.001)
    (at_40,) = orders(study_of(tmp_path))
    assert (at_40.models, at_40.reversed_pairs) == (("sum_dpfp_1", "delta_dpfp_1"), ())
    page, _ = report_of(tmp_path)
    assert "Left out: 1 point that diverged in the published runs." in page


# --- the floor ------------------------------------------------------------------------------------


def test_floor() -> None:
    assert floor(64, 64) == floor(64, 20) == 0
    assert floor(64, 200) == pytest.approx(0.34)


def test_the_published_evaluation_is_that_of_the_task() -> None:
    from fastweights.tasks.retrieval import PUBLISHED_MAX_QUERIES
    from fastweights.train.retrieval import PUBLISHED_CHUNK

    assert floor_module.MOST_ASKED == PUBLISHED_MAX_QUERIES
    assert floor_module.CHUNK == PUBLISHED_CHUNK


@pytest.mark.parametrize(("features", "keys"), [(128, 140), (64, 96), (64, 80), (384, 600)])
def test_bound_of_the_published_mean(features: int, keys: int) -> None:
    """The best map of a rank, by its singular values; for equal chunks it is the floor."""
    asked = min(keys, 200)
    chunks = torch.ones(asked).split(32)
    weights = torch.cat([chunk / (len(chunks) * len(chunk)) for chunk in chunks]).double()
    left = torch.linalg.svdvals(weights.sqrt().diag())[features:].square().sum().item() / 2
    assert bound(features, keys, published=True) == pytest.approx(left)
    assert bound(features, keys, published=False) == floor(features, keys)
    if keys % 32 == 0:
        assert left == pytest.approx(floor(features, keys))


def test_below_the_floor(tmp_path: Path) -> None:
    strict = {"protocol": "strict"}
    write_memory(tmp_path, "unique_200", "sum_elu_plus_one", 0.324, seed=1)  # 4.7 % below
    write_memory(tmp_path, "unique_200", "sum_elu_plus_one", 0.322, seed=2)  # 5.3 % below
    write_memory(tmp_path, "unique_200", "sum_elu_plus_one", 0.28, seed=3)  # the bound is 0.304
    write_memory(tmp_path, "unique_400", "sum_dpfp_1", 0.32)  # 0.34; 200 of 400 keys
    write_memory(tmp_path, "unique_400", "sum_dpfp_1", 0.32, seed=2, overrides=strict)
    write_memory(tmp_path, "unique_400", "softmax", 0.0)  # has no floor
    write_memory(tmp_path, "repeated_200", "delta_elu_plus_one", 0.1)  # setting 2 has none
    found = below_floor(study_of(tmp_path))
    assert [(each.num_keys, each.model, each.seed, each.is_violation) for each in found] == [
        (200, "sum_elu_plus_one", 2, False),
        (200, "sum_elu_plus_one", 3, True),
        (400, "sum_dpfp_1", 1, False),
        (400, "sum_dpfp_1", 2, True),
    ]
    page, data = report_of(tmp_path)
    assert "Runs with fewer features than keys: 5." in page
    assert "which violates the bound: 2, and 0 of the published ones." in page
    assert "- sum, ELU+1, S = 200, seed 3: 0.280, floor 0.340 (violates the bound)." in page
    assert data["floor"]["num_checked"] == 5


def test_published_losses_lie_below_the_floor_only_where_not_every_key_is_asked() -> None:
    found = published_below_floor()
    assert len(found) == 8
    assert not any(each.is_violation for each in found)


# --- points ---------------------------------------------------------------------------------------


def test_losses_and_tables(study: Path) -> None:
    found = study_of(study)
    assert found.settings == [1, 2]
    assert found.sizes(1) == [40, 200]
    assert found.models(1) == ["softmax", "sum_elu_plus_one", "sum_dpfp_1", "sum_favor_128_scaled"]
    (table,) = loss_tables(found, 1)
    assert table.splitlines()[2:] == [
        "| softmax | ours | – | 0.0004 (0.2k) |",
        "|  | published | – | 0.0000 (0.2k) |",
        "| sum, ELU+1 | ours | – | 0.350 (2.4k) |",
        "|  | published | – | 0.343 (2.4k) |",
        "| sum, DPFP-1 | ours | – | 0.360 (0.3k) |",
        "|  | published | – | 0.175 (2.5k) |",
        "| sum, FAVOR+ 128 scaled | ours | 0.140 (0.2k) | – |",
    ]
    (table,) = loss_tables(found, 2)
    assert table.splitlines()[2:] == [
        "| sum, DPFP-1 | ours | 0.118 (0.2k) | – (1 not finished) |",
        "|  | published | 0.105 (1.3k) | 0.114 (1.3k) |",
        "| delta, DPFP-1 | ours | 0.0009 (0.2k) | – |",
        "|  | published | 0.0008 (0.7k) | – |",
        "| delta, FAVOR+ 64 | ours | – | diverged |",
        "|  | published | – | diverged (2.9k) |",
    ]


def test_three_seeds_give_mean_and_spread(tmp_path: Path) -> None:
    for seed, loss in ((1, 0.30), (2, 0.34), (3, 0.38)):
        write_memory(tmp_path, "unique_200", "sum_elu_plus_one", loss, seed=seed, steps=100 * seed)
    write_failed(tmp_path, "unique_200", "sum_elu_plus_one", "the weights are not finite", 4)
    (tmp_path / "unique_200" / "sum_elu_plus_one" / "seed_5").mkdir()
    (point,) = study_of(tmp_path).points
    assert point.loss == pytest.approx(0.34)
    (table,) = loss_tables(study_of(tmp_path), 1)
    assert "| 0.340 ± 0.040 (0.1k – 0.3k, 1 diverged, 1 not finished) |" in table
    page, data = report_of(tmp_path)
    assert page.startswith("# Associative retrieval: setting 1 (1 size × 1 memory), 5 seeds\n")
    assert "**1 of 1 compared points agree (100.0 %)**" in page
    (shown,) = data["points"]
    assert (shown["std"], shown["num_diverged"]) == (pytest.approx(0.04), 1)
    assert shown["losses"] == [0.30, 0.34, 0.38]


def test_final_losses(tmp_path: Path) -> None:
    write_memory(tmp_path, "unique_20", "softmax", 0.0)
    write_memory(tmp_path, "unique_20", "softmax", None, seed=2)
    write_memory(tmp_path, "unique_20", "softmax", 0.25, seed=3, overrides={"protocol": "strict"})
    write_failed(
        tmp_path, "unique_20", "softmax", "the loss is inf at step 3; no checkpoint yet", 4
    )
    write_failed(tmp_path, "unique_20", "softmax", "killed", 5)
    losses = [final_loss(run) for run in read_runs(tmp_path)]
    assert [losses[0], losses[2], losses[4]] == [0.0, 0.25, None]
    assert math.isnan(losses[1] or 0) and math.isnan(losses[3] or 0)


def test_numbers_as_text() -> None:
    texts = ["0.0000", "0.0968", "0.100", "0.500", "1.692", "diverged"]
    assert [loss_text(x) for x in (9e-6, 0.09684, 0.0999999, 0.5, 1.6918, math.nan)] == texts
    assert loss_text(0.02, 0.001) == "0.0200 ± 0.0010"
    assert [steps_text(steps) for steps in ([200], [1200, 800])] == ["0.2k", "0.8k – 1.2k"]


def test_a_memory_of_other_settings_is_not_compared(tmp_path: Path) -> None:
    narrow = {"model": {"head_dim": 32}}
    write_memory(tmp_path, "unique_20", "sum_elu_plus_one", 0.3, overrides=narrow)
    (point,) = study_of(tmp_path).points
    assert (point.published, point.num_features) == (None, 32)
    page, data = report_of(tmp_path)
    assert "No point can be compared." in page
    assert data["agreement"]["overall"]["share"] is None


# --- the whole report -----------------------------------------------------------------------------


def test_page_of_an_incomplete_study(study: Path) -> None:
    page, data = report_of(study)
    assert page.startswith(
        "# Associative retrieval: setting 1 (2 sizes × 4 memories), "
        "setting 2 (2 sizes × 3 memories), seed 1\n"
    )
    assert "- Protocol: published. Runs were evaluated as in the official code" in page
    assert "6 of 8 have a result" in page
    assert "2030" not in page
    assert "**4 of 5 compared points agree (80.0 %)**" in page
    assert "| 1 | sum, DPFP-1 | 200 | 0.360 (0.3k) | 0.175 (2.5k) | 0.173 |" in page
    assert (
        "Published, not run: delta, ELU+1; delta, DPFP-2; delta, FAVOR+ 128; "
        "clamped delta, DPFP-1; clamped delta, tanh."
    ) in page
    assert "At 2 of 2 sizes the memories are in the published order." in page
    assert "- sum, DPFP-1, failed: disk full (repeated\\_40 seed 1)\n" in page
    assert "the loss is nan at step 812; no \\| kept" in page
    assert "```\nfastweights report study\n```" in page
    for name in FIGURES:
        assert f"({name}.png)" in page
        assert (study / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "at S = 200: seeds thin" in page and "at S = 20: seeds thin" in page
    points = {(p["setting"], p["num_keys"], p["model"]): p for p in data["points"]}
    assert points[1, 200, "sum_dpfp_1"]["agrees"] is False
    assert points[1, 200, "sum_dpfp_1"]["floor"] == pytest.approx(0.18)
    diverged = points[2, 40, "delta_favor_64"]
    assert (diverged["loss"], diverged["num_diverged"], diverged["agrees"]) == (None, 1, True)
    assert diverged["published"]["diverged"]
    assert len(data["published"]) == 320
    assert len(data["runs"]) == 8
    curve = next(curve for curve in data["curves"] if curve["model"] == "sum_dpfp_1")
    assert (curve["steps"], curve["losses"]) == ([100, 200, 300], [0.5, 0.5, 0.36])


def test_complete_study_of_both_settings(tmp_path: Path) -> None:
    """Every published loss again, with seeds that differ by little."""
    losses = published_losses()
    for cell in RETRIEVAL.cells(tasks=["unique_100", "repeated_80", "repeated_100"]):
        setting = 2 if cell.task.startswith("repeated") else 1
        known = losses.get((setting, int(cell.task.split("_")[1]), cell.model))
        if known and math.isnan(known.loss):
            write_failed(tmp_path, cell.task, cell.model, "the loss is nan at step 9")
        else:
            write_memory(tmp_path, cell.task, cell.model, 1.04 * known.loss if known else 0.3)
    page, data = report_of(tmp_path)
    assert "**15 of 15 compared points agree (100.0 %)**" in page
    assert all(order["reversed_pairs"] == [] for order in data["orders"])
    assert "delta, DPFP-2 at S = 100 in setting 2 was cut after 300 steps; the point" in page
    assert len(data["orders"]) == 3
    assert set(data["figures"]) == {f"{name}.png" for name in FIGURES}
    assert "The points that do not agree" not in page


def test_cpu_time_of_one_seed(tmp_path: Path) -> None:
    """Two seeds count as their mean; what is not published, or not measured, is left out."""
    write_memory(tmp_path, "unique_20", "softmax", 0.001, cpu_s=1800.0)
    write_memory(tmp_path, "unique_20", "softmax", 0.001, seed=2, cpu_s=5400.0)
    write_memory(tmp_path, "unique_20", "sum_dpfp_1", 0.001, seed=2, cpu_s=1800.0)
    write_memory(tmp_path, "unique_20", "sum_dpfp_1", 0.001)
    write_memory(tmp_path, "unique_20", "sum_dpfp_2", 0.001)
    write_memory(tmp_path, "unique_20", "sum_favor_64", 0.1, cpu_s=3600.0)
    write_memory(tmp_path, "unique_20", "sum_favor_128_scaled", 0.1, cpu_s=3600.0)
    page, data = report_of(tmp_path)
    assert "1.5 h for 2 points without FAVOR+ and tanh, 2.5 h for all 3 that are published" in page
    assert [point["cpu_s"] for point in data["points"][:3]] == [3600.0, 1800.0, None]


def test_strict_runs_say_so(tmp_path: Path) -> None:
    write_memory(tmp_path, "unique_20", "softmax", 0.001, overrides={"protocol": "strict"})
    page, data = report_of(tmp_path)
    assert "- Protocol: strict. Runs were evaluated on every key of 100 sequences" in page
    assert data["points"][0]["loss"] == 0.001


def test_same_folders_same_bytes(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build_report(study, out)
    files = {path.name: path.read_bytes() for path in out.iterdir()}
    assert set(files) == {"report.md", "report.json", *(f"{name}.png" for name in FIGURES)}
    build_report(study, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == files


def test_failures_and_planned_runs_only(tmp_path: Path) -> None:
    write_failed(tmp_path, "unique_20", "softmax", "disk full")
    planned = [{"task": "repeated_20", "model": "delta_dpfp_1", "seed": seed} for seed in (1, 2)]
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({"cells": planned}))
    page, data = report_of(tmp_path)
    assert ".png" not in page
    assert "named in study.yaml, no run folder (repeated\\_20 seed 1, repeated\\_20 seed 2)" in page
    assert data["agreement"]["overall"]["num_compared"] == 0
    assert "No size has two memories that can be compared." in page


def test_study_that_has_not_started_is_one_of_retrieval(tmp_path: Path) -> None:
    planned = [{"task": "unique_20", "model": "softmax", "seed": 1}]
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({"cells": planned}))
    assert report_of(tmp_path)[0].startswith("# Associative retrieval: setting 1")


def test_single_run_is_named_by_its_place_or_its_configuration(tmp_path: Path) -> None:
    place = write_memory(tmp_path, "repeated_20", "delta_dpfp_1", 0.001)
    (run,) = read_runs(place)
    assert (run.task, run.model, run.seed) == ("repeated_20", "delta_dpfp_1", 1)
    moved = place.rename(tmp_path / "mine")
    (run,) = read_runs(moved)
    assert (run.task, run.model, run.seed) == ("repeated_20", "delta_dpfp_1", 1)
    assert "setting 2 (1 size × 1 memory), seed 1" in build_report(moved).read_text()


@pytest.mark.parametrize("report", [build_report, length_table])
def test_both_kinds_in_one_folder_are_refused_in_one_line(tmp_path: Path, report: Any) -> None:
    write_memory(tmp_path, "unique_20", "softmax", 0.001)
    settings = formal_config("parity", "lstm", 1)
    write_run(tmp_path / "parity" / "lstm" / "seed_1", settings, result(1.0, 1.0))
    with pytest.raises(ValueError, match="not both: parity/lstm/seed_1 and unique_20/") as caught:
        report(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report.md").exists()


def test_table_of_the_terminal(study: Path) -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(length_table(study))
    lines = [" ".join(line.split()) for line in console.export_text().splitlines()]
    assert lines[:2] == ["Setting 1: how much a memory holds,", "squared error by number of keys"]
    assert "sum, DPFP-1 – 0.360≠" in lines
    assert "delta, FAVOR+ 64 – nan" in lines


# --- figures --------------------------------------------------------------------------------------


def test_figure_by_size_has_ours_the_published_and_the_floor(study: Path) -> None:
    figure = loss_by_size(study_of(study), 1)
    assert figure is not None
    lines = {
        (line.get_marker(), len(np.asarray(line.get_xdata()))): np.asarray(line.get_ydata())
        for line in figure.axes[0].lines
    }
    assert lines["D", 1].tolist() == [0.36]
    assert lines["D", 30][0] == 0.0007829439
    floors = [line for line in figure.axes[0].lines if line.get_marker() == "None"]
    assert [np.asarray(line.get_xdata())[0] for line in floors] == [64, 128]
    assert figure.axes[0].get_legend() is None and len(figure.legends) == 1
    assert len(figure.legends[0].get_texts()) == 4 + 1 + 3


def test_figure_by_step_shows_the_size_that_most_memories_have(study: Path) -> None:
    found = study_of(study)
    assert (curve_size(found, 1), curve_size(found, 2)) == (200, 20)
    write_memory(study, "unique_220", "softmax", 0.001)
    assert curve_size(study_of(study), 1) == 200
    figure = loss_by_step(found, 1)
    assert figure is not None
    (axes,) = figure.axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_title("left") == "setting 1, S = 200"


def test_size_of_curves_where_none_is_preferred(tmp_path: Path) -> None:
    for task in ("unique_400", "unique_300", "repeated_60"):
        write_memory(tmp_path, task, "sum_dpfp_1", 0.3)
    found = study_of(tmp_path)
    assert (curve_size(found, 1), curve_size(found, 2)) == (300, 60)


def test_nothing_measured_gives_no_figure(tmp_path: Path) -> None:
    write_failed(tmp_path, "unique_20", "softmax", "no")
    found = study_of(tmp_path)
    assert loss_by_size(found, 1) is loss_by_step(found, 1) is None
    assert curve_size(found, 1) is None
