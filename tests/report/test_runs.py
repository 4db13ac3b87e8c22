import json
from pathlib import Path

import pytest
import yaml

from fastweights.report.runs import read_runs
from tests.report.synthetic_study import config, result, write_run


def test_every_kind_of_leftover_is_a_run(tmp_path: Path) -> None:
    cell = tmp_path / "parity" / "srwm"
    write_run(cell / "seed_1", config("parity", "srwm", 1), result(1.0, 0.5))
    write_run(cell / "seed_2", config("parity", "srwm", 2), failure="NaN loss\nat step 12")
    write_run(cell / "seed_3", config("parity", "srwm", 3), curve=[(50, 0.1), (100, 0.2)])
    write_run(cell / "seed_4")
    write_run(cell / "seed_5", config("parity", "srwm", 5))
    write_run(cell / "seed_6", config("parity", "srwm", 6), result(1.2, 0.5))
    (write_run(cell / "seed_7", config("parity", "srwm", 7)) / "result.json").write_text("{")
    planned = [{"task": "parity", "model": "srwm", "seed": seed} for seed in (1, 8)]
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({"cells": planned}))

    found = {run.seed: (run.status, run.error or "") for run in read_runs(tmp_path)}

    assert found[1] == ("done", "")
    assert found[2] == ("failed", "NaN loss at step 12")
    assert found[3] == ("unfinished", "no result.json (last metrics at step 100)")
    assert found[4] == ("empty", "empty run folder")
    assert found[5] == ("unfinished", "no result.json (no metrics)")
    assert found[6][0] == "unreadable"
    assert "validation.sequence_accuracy" in found[6][1]
    assert found[7][0] == "unreadable"
    assert found[7][1].startswith("result.json: ")
    assert found[8] == ("not started", "named in study.yaml, no run folder")
    assert all("\n" not in error for _, error in found.values())


def test_result_wins_over_an_earlier_failure(tmp_path: Path) -> None:
    place = tmp_path / "parity" / "lstm" / "seed_1"
    write_run(place, config("parity", "lstm", 1), result(1.0, 1.0), failure="disk full")
    (run,) = read_runs(tmp_path)
    assert (run.status, run.error) == ("done", None)


def test_a_cut_metrics_line_is_passed_over(tmp_path: Path) -> None:
    place = write_run(tmp_path / "parity" / "lstm" / "seed_1", curve=[(100, 0.5), (50, 0.25)])
    with (place / "metrics.jsonl").open("a") as file:
        file.write('{"step": 150, "split": "bin1", "sequence_accuracy": 0.125}\n')
        file.write('{"step": 150, "split": "train", "nats_per_token": 0.3}\n')
        file.write('{"step": 200, "split": "valid')
    (run,) = read_runs(tmp_path)
    assert run.curve("validation") == ([50, 100], [0.25, 0.5])
    assert run.curve("bin1") == ([150], [0.125])
    assert run.curve("train") == ([], [])


def test_single_run_is_named_by_its_place_in_a_study(tmp_path: Path) -> None:
    place = tmp_path / "parity" / "delta_net_0_2" / "seed_3"
    write_run(place, config("parity", "delta_net", 3), result(1.0, 1.0))
    (run,) = read_runs(place)
    assert (run.path, run.task, run.model, run.seed) == (".", "parity", "delta_net_0_2", 3)


def test_single_run_elsewhere_is_named_by_its_configuration(tmp_path: Path) -> None:
    settings = config("aa_star", "delta_net", 7)
    place = write_run(tmp_path / "mine", settings, result(1.0, 1.0))
    (run,) = read_runs(place)
    assert (run.task, run.model, run.seed) == ("aa_star", "delta_net", 7)

    settings["model"]["layer_options"]["max_write_strength"] = 2.0
    settings["task"] = {"kind": "regex", "pattern": "(ab)*"}
    (run,) = read_runs(write_run(tmp_path / "other", settings, result(1.0, 1.0)))
    assert (run.task, run.model) == ("regex (ab)*", "delta_net_0_2")


@pytest.mark.parametrize("content", ["cells: 3", "- a", "cells: [{task: parity}]", "cells: ["])
def test_damaged_study_yaml_says_so_in_one_line(tmp_path: Path, content: str) -> None:
    write_run(tmp_path / "parity" / "lstm" / "seed_1", curve=[(50, 0.1)])
    (tmp_path / "study.yaml").write_text(content)
    with pytest.raises(ValueError, match=r"study\.yaml") as caught:
        read_runs(tmp_path)
    assert "\n" not in str(caught.value)


def test_horizon_of_unequal_lists_is_unreadable(tmp_path: Path) -> None:
    damaged = result(1.0, 1.0, [1.0, 1.0], 100)
    damaged["horizon"]["lengths"] = [50]
    place = tmp_path / "parity" / "lstm" / "seed_1"
    write_run(place, config("parity", "lstm", 1))
    (place / "result.json").write_text(json.dumps(damaged))
    (run,) = read_runs(tmp_path)
    assert run.status == "unreadable"
    assert "1 lengths but 2 accuracies" in (run.error or "")


def test_no_runs_is_an_error_of_one_line(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ValueError, match=str(folder)) as caught:
            read_runs(folder)
        assert "\n" not in str(caught.value)
