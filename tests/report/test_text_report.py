import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from fastweights.experiments import EXPERIMENTS
from fastweights.report import build_report, length_table
from fastweights.report.cells import read_study
from fastweights.report.text.bits_figure import bits_by_step
from fastweights.report.text.expert_figures import (
    chosen_per_token,
    expert_load,
    expert_pairs,
)
from fastweights.report.text.position_figure import bits_by_position
from fastweights.report.text.positions import position_curves, positions_table
from fastweights.report.text.published import (
    CHANGES,
    PUBLISHED,
    carried_table,
    comparisons,
    order_of,
    published_parts,
)
from fastweights.report.text.tables import bits_table, differences, experts_table
from tests.report.synthetic_text import TEXT, by_position, usage, write_text_run

EVEN = [
    [0.5, 0.25, 0.25, 0.0],
    [0.25, 0.5, 0.0, 0.25],
    [0.25, 0.0, 0.5, 0.25],
    [0, 0.25, 0.25, 0.5],
]
SKEWED = [[1.0, 0.5, 0.5, 0.0], [0.5, 0.5, 0.0, 0.0], [0.5, 0.0, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0]]
ONE = [[1.0, 0.0], [0.0, 0.0]]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Dense with two seeds, a mixture with two that has two layers, one with a single expert."""
    folder = tmp_path / "study"
    for seed, bits in ((1, 2.0), (2, 2.2)):
        write_text_run(folder, "dense", bits, seed=seed, curve=[5.0, 3.0, bits])
        write_text_run(
            folder,
            "sigma_moe",
            bits - 0.1 * seed,
            seed=seed,
            curve=[5.5, 2.5, bits],
            experts={"blocks.0.feed_forward": usage(EVEN), "blocks.1.feed_forward": usage(SKEWED)},
        )
    write_text_run(folder, "switch", 2.4, experts={"blocks.0.feed_forward": usage(ONE)})
    return folder


def test_tables_by_hand(study: Path) -> None:
    found = read_study(study)
    assert bits_table(found, TEXT).splitlines()[2:] == [
        "| σ-MoE | 2 | 1,000 | 1.850 ± 0.071 | 1.950 ± 0.071 | -0.150 ± 0.071 | 2 |",
        "| dense | 2 | 1,000 | 2.000 ± 0.141 | 2.100 ± 0.141 | – | 2 |",
        "| Switch | 1 | 1,000 | 2.300 | 2.400 | +0.400 | 2 |",
    ]
    assert differences(found.cell(TEXT, "sigma_moe"), found.cell(TEXT, "dense")) == pytest.approx(
        [-0.2, -0.1]
    )
    assert experts_table(found).splitlines()[2:] == [
        "| Switch | 1 | 0.750 | 2.0 | 1 of 2 |",
        "| σ-MoE | 4 | 0.750 | 2.0 | 2 of 16 |",
    ]


def test_the_published_order(study: Path) -> None:
    """Published: sigma-MoE, dense, Switch, S-BASE; Switch has one seed alone."""
    for seed, bits in ((1, 2.05), (2, 2.1)):
        write_text_run(study, "s_base", bits, seed=seed)
    for seed, bits in ((1, 1.8), (2, 1.9)):
        write_text_run(study, "pkm", bits, seed=seed)
    found = read_study(study)
    ((published, cells),) = comparisons(found, TEXT)
    order = order_of(published, cells)
    names = ["sigma_moe", "dense", "switch", "pkm", "s_base"]
    assert [cell.model for cell in cells] == names
    assert order.same == [("sigma_moe", "dense"), ("sigma_moe", "s_base"), ("pkm", "s_base")]
    assert order.reversed == [("sigma_moe", "pkm"), ("dense", "pkm")]
    assert order.undecided == [
        ("sigma_moe", "switch"),
        ("dense", "switch"),
        ("dense", "s_base"),  # 0.05 and -0.1
        ("switch", "pkm"),
        ("switch", "s_base"),
    ]
    *_, sentence = published_parts(found, TEXT)
    assert sentence.startswith(
        "Pairs in the published order: 3 of 10; 2 the other way round (σ-MoE – PKM; "
        "dense – PKM); 5 undecided (σ-MoE – Switch; "
    )


def test_equal_published_numbers_have_no_order(tmp_path: Path) -> None:
    for model in ("lm_delta_net", "lm_recurrent_delta"):
        write_text_run(tmp_path, model, 2.0)
    ((published, cells),) = comparisons(read_study(tmp_path), TEXT)
    assert len(cells) == 2 and sum(map(len, order_of(published, cells))) == 0


def test_published_models_are_those_of_the_studies() -> None:
    models = {model for name in EXPERIMENTS for model in EXPERIMENTS[name].models}
    for published in PUBLISHED:
        assert len(published.perplexity) > 1
        assert {*published.perplexity, *published.bounds} <= models
    assert CHANGES["lm_delta_net"] == "31.1 to 29.4" and CHANGES["lm_linear"] == "33.0 to > 260"


def test_carried_state_beside_segments(tmp_path: Path) -> None:
    for seed, change in ((1, -0.1), (2, -0.2)):
        for model in ("lm_delta_net", "lm_linear"):
            write_text_run(tmp_path, model, 2.0, seed=seed)
        write_text_run(tmp_path, "lm_delta_net", 2.0 + change, seed=seed, carried=True)
        write_text_run(tmp_path, "lm_linear", 3.0, seed=seed, carried=True)
    write_text_run(tmp_path, "lm_srwm", 2.0)
    study = read_study(tmp_path)
    assert carried_table(study).splitlines()[2:] == [
        "| python\\_stdlib | linear Transformer | 2.000 ± 0.000 | 3.000 ± 0.000 | "
        "+1.000 ± 0.000 | 33.0 to > 260 |",
        "| python\\_stdlib | DeltaNet | 2.000 ± 0.000 | 1.850 ± 0.071 | -0.150 ± 0.071 | "
        "31.1 to 29.4 |",
    ]
    page = build_report(tmp_path).read_text(encoding="utf-8")
    assert "## Carried state" in page
    assert "| DeltaNet | 29.4 | 1.850 ± 0.071 |" in page
    assert "| linear Transformer | > 260 | 3.000 ± 0.000 |" in page
    (segments, carried) = json.loads((tmp_path / "report.json").read_text())["published"]
    assert segments["perplexity"] == {"lm_delta_net": "35.2", "lm_linear": "38.3"}
    assert carried["order"]["same"] == [["lm_delta_net", "lm_linear"]]


def test_perplexity_where_tokens_are_not_bytes(tmp_path: Path) -> None:
    for seed, perplexity in ((1, 30.0), (2, 32.0)):
        write_text_run(tmp_path, "dense", 1.5, seed=seed, perplexity=perplexity)
    header, _, row = bits_table(read_study(tmp_path), TEXT).splitlines()
    assert "| test perplexity |" in header
    assert "| 31.00 ± 1.41 |" in row


def test_how_the_texts_were_read(tmp_path: Path) -> None:
    segments = {"window": "segments", "context_length": 1024}
    write_text_run(tmp_path, "dense", 1.5, reading=segments)
    page = build_report(tmp_path).read_text(encoding="utf-8")
    assert "The texts were read in one way: segments of 1,024 tokens." in page
    carried = {"window": "carried", "context_length": 256, "num_lanes": {"test": 8}}
    write_text_run(tmp_path, "switch", 1.6, reading=carried)
    page = build_report(tmp_path).read_text(encoding="utf-8")
    assert "| read |" in page
    assert "| segments of 1,024 |" in page and "| carried over pieces of 256 |" in page


def test_loss_by_position(tmp_path: Path) -> None:
    for seed, end in ((1, 1.8), (2, 1.9)):
        measured = by_position([5.0, 4.0, 2.0, 1.9, end])
        write_text_run(tmp_path, "dense", 2.0, seed=seed, by_position=measured)
    write_text_run(tmp_path, "switch", 2.0, by_position=by_position([5.0, 4.0, 2.5, 2.6, 3.0]))
    write_text_run(tmp_path, "pkm", 2.0)
    lost = by_position([5.0] * 5) | {"nats_per_token": [None] * 5}
    write_text_run(tmp_path, "top_k", 2.0, by_position=lost)
    study = read_study(tmp_path)
    curves = position_curves(study, TEXT)
    assert positions_table(curves).splitlines()[2:] == [
        "| dense | 3 to 4 | 2.000 ± 0.000 | 9 to 16 | 1.850 ± 0.071 | -0.150 ± 0.071 |",
        "| Switch | 3 to 4 | 2.500 | 9 to 16 | 3.000 | +0.500 |",
    ]
    figure = bits_by_position(study)
    assert figure is not None
    (axes,) = figure.axes
    ends = {text.get_text() for text in axes.texts}
    assert ends == {"trained: 4", "dense", "Switch"}
    low, high = axes.get_ylim()
    assert low < 1.8 and 3.0 < high < 4.0  # the first positions are cut off
    page = build_report(tmp_path).read_text(encoding="utf-8")
    assert "## Loss by position" in page and "(loss_by_position.png)" in page
    cells = {
        cell["model"]: cell for cell in json.loads((tmp_path / "report.json").read_text())["cells"]
    }
    assert cells["dense"]["by_position"]["bits_per_byte"][-1]["mean"] == pytest.approx(1.85)
    assert cells["dense"]["by_position"]["standard_error"] == pytest.approx([0.02] * 5)
    assert cells["pkm"]["by_position"] is None and cells["top_k"]["by_position"] is None


def test_a_damaged_loss_by_position_is_told(tmp_path: Path) -> None:
    damaged = by_position([2.0] * 5) | {"standard_error": [0.1]}
    write_text_run(tmp_path, "dense", 2.0, by_position=damaged)
    (run,) = read_study(tmp_path).runs
    assert run.status == "unreadable"
    assert "by_position: " in str(run.error) and "[5, 5, 1] of them" in str(run.error)


def test_figures(study: Path) -> None:
    found = read_study(study)
    curves, load, pairs = bits_by_step(found), expert_load(found), expert_pairs(found)
    assert curves is not None and load is not None and pairs is not None
    (axes,) = curves.axes
    low, high = axes.get_ylim()
    assert low < 2.0 and 2.2 < high < 5.0  # the first steps are cut off
    shown = {axes.get_title(loc="left"): axes for axes in load.axes if axes.lines}
    assert set(shown) == {"σ-MoE", "Switch"}
    lines = [[float(y) for y in line.get_ydata()] for line in shown["σ-MoE"].lines[1:]]
    assert lines == 2 * [[1.0, 1.0, 1.0, 1.0], [2.0, 1.0, 1.0, 0.0]]
    titled = [axes.get_title(loc="left") for axes in pairs.axes if axes.images]
    assert titled == ["σ-MoE"]  # one expert a token makes no pairs
    assert chosen_per_token(read_study(study).runs[-1].experts["blocks.0.feed_forward"]) == 1


def test_the_whole_report(study: Path) -> None:
    page = build_report(study).read_text(encoding="utf-8")
    for name in ("bits_per_byte.png", "expert_load.png", "expert_pairs.png"):
        assert (study / name).stat().st_size > 10_000
        assert f"({name})" in page
    data = json.loads((study / "report.json").read_text())
    cells = {cell["model"]: cell for cell in data["cells"]}
    assert cells["sigma_moe"]["test_less_baseline"]["mean"] == pytest.approx(-0.15)
    console = Console(file=io.StringIO(), width=80)
    console.print(length_table(study))
    assert "1.950 ± 0.071" in console.file.getvalue()  # type: ignore[attr-defined]


def test_without_experts_and_metrics(tmp_path: Path) -> None:
    write_text_run(tmp_path, "dense", 2.0)
    page = build_report(tmp_path).read_text(encoding="utf-8")
    assert "Experts" not in page and ".png" not in page


def test_damaged_experts_are_told(study: Path) -> None:
    place = study / TEXT / "switch" / "seed_1" / "experts.json"
    place.write_text(json.dumps({"blocks.0": {"load": "many"}}))
    (run,) = [run for run in read_study(study).runs if run.model == "switch"]
    assert run.status == "unreadable" and "experts.json: load" in str(run.error)
