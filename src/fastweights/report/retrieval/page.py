"""report.md of a retrieval study, from its runs, its figures and the command that remakes it."""

import math
from collections.abc import Sequence

from fastweights.report.environments import machine_lines
from fastweights.report.names import escape_markdown
from fastweights.report.page import whole
from fastweights.report.retrieval.agreement import comparisons
from fastweights.report.retrieval.floor import MOST_ASKED
from fastweights.report.retrieval.memory import memory_name
from fastweights.report.retrieval.size_figure import HIGHEST
from fastweights.report.retrieval.step_figure import curve_size
from fastweights.report.retrieval.study import RetrievalStudy, is_published_variant
from fastweights.report.retrieval.tables import configuration_table, loss_tables, not_run
from fastweights.report.retrieval.verdicts import agreement_parts, floor_text, order_text

HEADINGS = {1: "Setting 1: how much a memory holds", 2: "Setting 2: how a memory forgets"}
_SETTINGS = {
    1: "S keys, each once, with S values, each once.",
    2: "Keys and values drawn with replacement; the value that was stored last with a key counts. "
    "Training sequences have 2 S pairs.",
}
FIGURES = {
    1: ("capacity.png", "capacity_curves.png"),
    2: ("update_rules.png", "update_rule_curves.png"),
}
"""Loss by size and loss by step of each setting."""
_VARIANTS = {
    "published": "evaluated as in the official code: 20 new sequences of length S, at most "
    f"{MOST_ASKED} of their keys, the last weights",
    "strict": "evaluated on every key of 100 sequences as long as the training sequences, which "
    "were not used before, with the weights of the best validation loss; the published losses come "
    "from the other evaluation",
}


def title(study: RetrievalStudy) -> str:
    """What was compared, in numbers."""
    parts = [
        f"setting {setting} ({_number(len(study.sizes(setting)), 'size')} × "
        f"{_number(len(study.models(setting)), 'memory', 'memories')})"
        for setting in study.settings
    ]
    seeds = sorted({run.seed for run in study.runs if run.seed is not None})
    shown = f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds"
    return "Associative retrieval: " + ", ".join([*parts, *([shown] if seeds else [])])


def variants(study: RetrievalStudy) -> list[dict[str, str | int]]:
    """How runs were evaluated, with `num_runs`."""
    configured = [run for run in study.runs if run.config]
    names = ["published" if is_published_variant(run) else "strict" for run in configured]
    return [
        {"variant": name, "meaning": meaning, "num_runs": names.count(name)}
        for name, meaning in _VARIANTS.items()
        if name in names
    ]


def page(study: RetrievalStudy, figures: Sequence[str], command: str) -> str:
    """The whole page."""
    parts = [f"# {title(study)}", _how(study)]
    for setting in study.settings:
        parts += _setting(study, setting, figures)
    parts += ["## Agreement with the published losses", *agreement_parts(study)]
    parts += ["## Order of the memories", order_text(study)]
    if 1 in study.settings:
        parts += ["## Analytic floor", floor_text(study)]
    parts += ["## Configurations", configuration_table(study), _configuration_note()]
    parts += ["## Runs without a result", _failures(study)]
    parts += ["## Make this page again", f"```\n{command}\n```"]
    return whole(parts)


def _how(study: RetrievalStudy) -> str:
    lines = [
        "The two synthetic experiments of Schlag, Irie, Schmidhuber (2021), section 6.1. The loss "
        "is half the squared distance between the value that was stored and what is read, 0.5 for "
        "a memory that reads nothing. Published: the end points of the authors' logs.",
        "",
    ]
    found = variants(study)
    for entry in found:
        number = f" ({entry['num_runs']} runs)" if len(found) > 1 else ""
        lines.append(f"- Protocol: {entry['variant']}{number}. Runs were {entry['meaning']}.")
    lines += machine_lines(study.runs)
    done = sum(run.status == "done" for run in study.runs)
    lines.append(f"- Runs: {done} of {len(study.runs)} have a result.")
    return "\n".join([*lines, *_cpu_time(study)])


def _cpu_time(study: RetrievalStudy) -> list[str]:
    """What one seed took, of the points that have a published loss and runs that measured it."""
    known = [
        (each.published.counts, time_s)
        for each in comparisons(study)
        if (time_s := each.point.cpu_s) is not None
    ]
    if not known:
        return []
    every = [time_s for _, time_s in known]
    counted = [time_s for counts, time_s in known if counts]
    return [
        f"- CPU time of one seed, where runs measured it: {math.fsum(counted) / 3600:.1f} h for "
        f"{len(counted)} points without FAVOR+ and tanh, {math.fsum(every) / 3600:.1f} h for all "
        f"{len(every)} that are published."
    ]


def _setting(study: RetrievalStudy, setting: int, figures: Sequence[str]) -> list[str]:
    by_size, by_step = FIGURES[setting]
    parts = [f"## {HEADINGS[setting]}", _SETTINGS[setting]]
    if by_size in figures:
        caption = (
            "Final loss against the number of keys: mean over finished seeds, a bar from the "
            f"lowest to the highest. What diverged is not drawn, nor what is above {HIGHEST:g}."
        )
        if setting == 1:
            caption += (
                " Dotted: with d features, no linear memory gets below ½ (1 – d/S) over all its "
                "keys, here for ELU+1 and DPFP."
            )
        parts += [f"![Final loss]({by_size})", caption]
    parts += [_table_note(), *loss_tables(study, setting)]
    missing = [memory_name(model).markdown for s, model in not_run(study) if s == setting]
    if missing:
        parts.append(f"Published, not run: {'; '.join(missing)}.")
    if by_step in figures:
        caption = (
            f"Loss of the evaluations during training, at S = {curve_size(study, setting)}: seeds "
            "thin, their mean bold, a marker where the last seed stopped. Hollow: where the "
            "published run stopped, and its loss there."
        )
        parts += [f"![Loss during training]({by_step})", caption]
    return parts


def _table_note() -> str:
    return (
        "Mean ± sample standard deviation over the finished seeds (one seed has no deviation), and "
        "in brackets the steps of the runs."
    )


def _configuration_note() -> str:
    return (
        "`–`: not applicable, or no finished run. Ranges are over sizes and seeds. Features: d, "
        "the width of a key behind its feature map. Feature sum: how features are normalised; "
        "attention sum: whether what is read is divided by the sum of its weights."
    )


def _failures(study: RetrievalStudy) -> str:
    """One line for each memory and reason."""
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for run in study.runs:
        if run.status != "done":
            key = (memory_name(run.model).markdown, run.status, run.error or "")
            seed = "" if run.seed is None else f" seed {run.seed}"
            grouped.setdefault(key, []).append(f"{escape_markdown(run.task)}{seed}")
    lines = [
        f"- {model}, {status}: {escape_markdown(error)} ({', '.join(places)})"
        for (model, status, error), places in grouped.items()
    ]
    return "\n".join(lines) or "None."


def _number(count: int, one: str, several: str | None = None) -> str:
    return f"{count} {one}" if count == 1 else f"{count} {several or one + 's'}"
