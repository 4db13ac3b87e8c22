import json
from pathlib import Path
from typing import Any

from fastweights.report import read_runs
from fastweights.report.environments import machine_lines
from tests.report.synthetic_retrieval import write_memory

ONE = {"device": "cpu", "platform": "Linux", "num_threads": 1, "versions": {"torch": "2.13.0"}}


def lines(folder: Path, *environments: dict[str, Any]) -> list[str]:
    for seed, environment in enumerate(environments, start=1):
        place = write_memory(folder, "unique_20", "softmax", 0.001, seed=seed)
        (place / "environment.json").write_text(json.dumps(environment))
    return machine_lines(read_runs(folder))


def test_one_machine_and_commit(tmp_path: Path) -> None:
    here = {**ONE, "commit": "0123456789abcdef", "dirty": True}
    assert lines(tmp_path, here, here) == [
        "- Machine: cpu, Linux, 1 thread, torch 2.13.0, commit 0123456789ab with local changes."
    ]


def test_commits_of_one_machine_share_a_line(tmp_path: Path) -> None:
    first, second = ({**ONE, "commit": letter * 40} for letter in "ab")
    other = {**ONE, "num_threads": 2}
    assert lines(tmp_path, second, second, first, ONE, other) == [
        "- Machine (4 runs): cpu, Linux, 1 thread, torch 2.13.0; commits bbbbbbbbbbbb (2), "
        "unknown (1), aaaaaaaaaaaa (1).",
        "- Machine (1 run): cpu, Linux, 2 threads, torch 2.13.0.",
    ]


def test_nothing_known(tmp_path: Path) -> None:
    assert lines(tmp_path, {}) == []
