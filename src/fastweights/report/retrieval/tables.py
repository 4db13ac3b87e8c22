"""The tables of a retrieval report, as Markdown."""

import math
from collections.abc import Sequence

from fastweights.report.retrieval.agreement import Share, comparisons, overall, shares
from fastweights.report.retrieval.memory import memory_name
from fastweights.report.retrieval.published import PublishedLoss, published_models
from fastweights.report.retrieval.study import Point, RetrievalStudy, section
from fastweights.report.tables import joined, markdown_table, value_range

COLUMNS = 10
"""Sizes side by side."""


def loss_text(loss: float, std: float | None = None) -> str:
    """Three decimals, four below 0.1; `diverged` for NaN."""
    if math.isnan(loss):
        return "diverged"
    decimals = 4 if round(loss, 4) < 0.1 else 3
    text = f"{loss:.{decimals}f}"
    return text if std is None else f"{text} ± {std:.{decimals}f}"


def steps_text(steps: Sequence[int]) -> str:
    """In thousands, from the fewest to the most."""
    low, high = (f"{number / 1000:g}k" for number in (min(steps), max(steps)))
    return low if low == high else f"{low} – {high}"


def point_text(point: Point | None) -> str:
    """Mean loss with its deviation, steps, and how many seeds have no loss."""
    if point is None:
        return "–"
    parts = []
    steps = [run.result.steps for run in point.done if run.result and run.result.steps is not None]
    if steps:
        parts.append(steps_text(steps))
    if point.losses and point.diverged:
        parts.append(f"{len(point.diverged)} diverged")
    missing = len(point.runs) - len(point.done) - len(point.diverged)
    if missing:
        parts.append(f"{missing} not finished")
    spread = point.spread
    text = "–" if point.loss is None else loss_text(point.loss, spread.std if spread else None)
    return f"{text} ({', '.join(parts)})" if parts else text


def published_text(published: PublishedLoss | None) -> str:
    """Loss and steps."""
    if published is None:
        return "–"
    return f"{loss_text(published.loss)} ({steps_text([published.steps])})"


def loss_tables(study: RetrievalStudy, setting: int) -> list[str]:
    """Two rows a memory, ours and published, ten sizes a table. The published row is there where
    the study has the memory as published."""
    tables, all_sizes = [], study.sizes(setting)
    for start in range(0, len(all_sizes), COLUMNS):
        sizes = all_sizes[start : start + COLUMNS]
        rows = []
        for model in study.models(setting):
            points = {point.num_keys: point for point in study.of_model(setting, model)}
            found = [points.get(size) for size in sizes]
            published = [point.published if point else None for point in found]
            rows.append([memory_name(model).markdown, "ours", *map(point_text, found)])
            if any(published):
                rows.append(["", "published", *map(published_text, published)])
        tables.append(markdown_table(["memory", "S", *map(str, sizes)], rows))
    return tables


def share_table(study: RetrievalStudy) -> str:
    """One row for each published memory of each setting; and last what all but FAVOR+ and tanh
    add up to."""
    rows = [
        [str(setting), memory_name(model).markdown, *share_cells(share)]
        for (setting, model), share in shares(study).items()
    ]
    rows.append(["1 and 2", "**all but FAVOR+ and tanh**", *share_cells(overall(study))])
    return markdown_table(["setting", "memory", "published", "compared", "agree", "share"], rows)


def share_cells(share: Share) -> list[str]:
    """Counts and share in %."""
    if share.share is None:
        return [str(share.num_published), "not run", "–", "–"]
    counts = (share.num_published, share.num_compared, share.num_agreeing)
    return [*map(str, counts), f"{100 * share.share:.0f} %"]


def disagreement_table(study: RetrievalStudy) -> str:
    """The points that do not agree; an empty text where all do."""
    rows = [
        [
            str(comparison.point.setting),
            memory_name(comparison.point.model).markdown,
            str(comparison.point.num_keys),
            point_text(comparison.point),
            published_text(comparison.published),
            loss_text(comparison.published.best),
        ]
        for comparison in comparisons(study)
        if not comparison.agrees
    ]
    header = ["setting", "memory", "S", "ours", "published", "lowest published"]
    return markdown_table(header, rows) if rows else ""


def configuration(study: RetrievalStudy, setting: int, model: str) -> dict[str, str]:
    """What was run, as text: from the smallest to the largest over sizes and seeds."""
    points = study.of_model(setting, model)
    runs = [run for point in points for run in point.runs]
    models = [section(run.config, "model") for run in runs]
    trainings = [section(run.config, "training") for run in runs]
    results = [run.result for point in points for run in point.done if run.result]
    return {
        "head dim": value_range([each.get("head_dim") for each in models], "{:g}"),
        "features": value_range([point.num_features for point in points], "{:g}"),
        "feature sum": joined([each.get("feature_normalization") for each in models]),
        "attention sum": joined([each.get("attention_normalizer") for each in models]),
        "lr": value_range([each.get("lr") for each in trainings], "{:g}"),
        "batch": value_range([each.get("batch_size") for each in trainings], "{:g}"),
        "parameters": value_range([result.num_parameters for result in results], "{:,}"),
        "steps": value_range([result.steps for result in results], "{:,}"),
        "wall time, s": value_range([result.wall_s for result in results], "{:.0f}"),
    }


def configuration_table(study: RetrievalStudy) -> str:
    """One row a setting and memory."""
    rows = []
    for setting in study.settings:
        for model in study.models(setting):
            found = configuration(study, setting, model)
            rows.append([str(setting), memory_name(model).markdown, *found.values()])
    if not rows:
        return ""
    columns = configuration(study, study.points[0].setting, study.points[0].model)
    return markdown_table(["setting", "memory", *columns], rows)


def not_run(study: RetrievalStudy) -> list[tuple[int, str]]:
    """Setting and name of the published memories that the study does not have."""
    return [
        (setting, model)
        for setting in study.settings
        for model in published_models(setting)
        if model not in study.models(setting)
    ]
