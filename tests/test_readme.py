"""What the README and the pages in docs/ tell a reader to type works."""

import json
import re
import shlex
from pathlib import Path

import pytest

import fastweights.cli.study as study_command
from fastweights.cli import main
from fastweights.report import build_report
from fastweights.study import plan_study

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "formal-languages"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text("utf-8"), re.DOTALL)


def commands() -> list[str]:
    """Page by page: those of its blocks, then those in its sentences."""
    found = []
    for page in PAGES:
        lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
        lines += re.findall(r"`(fastweights [^`]+)`", page.read_text("utf-8"))
        found += [line.split(" #")[0].strip() for line in lines if line.startswith("fastweights ")]
    return found


@pytest.mark.parametrize("block", [block for page in PAGES for block in blocks(page, "python")])
def test_python_blocks_run(block: str) -> None:
    exec(compile(block, "README.md", "exec"), {})


def test_commands_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With fewer steps than the page's commands would take, and the first run of a study only."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(study_command, "plan_study", lambda cells, out: plan_study(cells[:1], out))
    write_inputs(tmp_path)
    assert len(commands()) > 8
    for command in commands():
        words = shlex.split(command)[1:]
        if words[0] == "train" and "--resume" not in words:
            words += ["--max-steps", "4", "--horizon-lengths", "20", "--quiet"]
        if words[0] == "study":
            words += ["--set", "max_steps=4", "horizon_lengths=20,40"]
        assert main(words) == 0, (command, capsys.readouterr().err)


def write_inputs(folder: Path) -> None:
    """The files that the pages' commands name."""
    (folder / "automaton.yaml").write_text(
        "states: [even, odd]\nsymbols: [a]\ninitial: even\naccepting: [even]\n"
        "transitions: {even: {a: odd}, odd: {a: even}}\n"
    )
    (folder / "my-data").mkdir()
    sources = ["0 1", "1 1 0", "0", "1", "1 0", "0 0", "1 1", "0 1 1", "1 0 1", "0 0 1", "1 1 1"]
    targets = [
        " ".join(str(s[: i + 1].count("1") % 2) for i in range(0, len(s), 2)) for s in sources
    ]
    (folder / "my-data" / "train.src").write_text("\n".join(sources) + "\n")
    (folder / "my-data" / "train.tgt").write_text("\n".join(targets) + "\n")
    (folder / "my-text").mkdir()
    for i in range(40):
        words = " ".join(("the cat", "the rat", "a mat")[(i + j) % 3] for j in range(150))
        (folder / "my-text" / f"{i}.txt").write_text(f"Document {i}\n{words}.\n")


def test_the_readmes_tables_are_those_of_the_committed_reports() -> None:
    """And a report is what its command makes of the committed runs."""
    readme = (ROOT / "README.md").read_text("utf-8")
    reports = (RESULTS, ROOT / "results" / "cpu-kernels")
    known = {
        line
        for folder in reports
        for line in (folder / "report.md").read_text("utf-8").splitlines()
    }
    rows = [line for line in readme.splitlines() if line.startswith("| ")]
    assert len(rows) > 14
    assert set(rows) <= known


def test_the_committed_report_can_be_made_again(tmp_path: Path) -> None:
    build_report(RESULTS, tmp_path)
    again = json.loads((tmp_path / "report.json").read_text("utf-8"))
    committed = json.loads((RESULTS / "report.json").read_text("utf-8"))
    assert {**again, "command": committed["command"]} == committed
