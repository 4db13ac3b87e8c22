"""report.md: the page, from a study, its figures and the command that remakes it."""

from collections.abc import Iterable, Sequence

from fastweights.report.cells import Study
from fastweights.report.environments import machine_lines
from fastweights.report.names import escape_markdown, language_name, model_name
from fastweights.report.published import EVIDENCE, EXPECTATIONS, THEORY
from fastweights.report.tables import (
    SOLVED,
    accuracy_table,
    claim_keys,
    configuration_table,
    disagreements,
    has_claims,
    horizon_table,
    published_table,
    side_by_side_table,
)

_SELECTION = {
    "validation": "selected on the validation split; no test bin was looked at during training",
    "bin0+bin1": "selected on the test bins, as published, which makes the numbers optimistic",
}
_CAPTIONS = {
    "accuracy_heat_map.png": (
        "Accuracy",
        "Final sequence accuracy, mean over finished seeds; below it the standard deviation, where "
        "it is not 0.",
    ),
    "horizon_curves.png": (
        "Horizon",
        "Sequence accuracy at exact lengths, mean over seeds, with a band from the worst to the "
        "best seed; the training lengths are shaded. Lines that lie on each other are drawn "
        "slightly apart.",
    ),
    "learning_curves.png": (
        "Learning curves",
        "Accuracy during training: seeds thin, their mean bold, a marker where the last seed "
        "stopped. A seed that stopped earlier counts with its last value.",
    ),
}


def title(study: Study) -> str:
    """What was compared, in numbers."""
    return f"Length generalisation: {counted(study, 'languages')}"


def counted(study: Study, tasks: str) -> str:
    """How many tasks (called `tasks`), models and seeds; the name where there is one."""
    counts = [
        (len(study.languages), tasks, language_name(study.languages[0]).markdown),
        (len(study.models), "models", model_name(study.models[0]).markdown),
    ]
    parts = [only if number == 1 else f"{number} {what}" for number, what, only in counts]
    seeds = [len({run.seed for run in cell.runs}) for cell in study.cells.values()]
    if len({run.seed for run in study.runs}) == 1:
        parts.append(f"seed {study.runs[0].seed}")
    elif min(seeds) == max(seeds):
        parts.append(f"{seeds[0]} seeds")
    else:
        parts.append(f"{min(seeds)} to {max(seeds)} seeds")
    return " × ".join(parts)


def protocols(study: Study) -> list[dict[str, str | int]]:
    """The distinct protocols of the runs and how each selected its model, with `num_runs`."""
    counts: dict[tuple[str, str], int] = {}
    for run in study.runs:
        named = (run.result and run.result.protocol) or run.config.get("protocol")
        if named:
            selection = (run.result and run.result.selection) or (
                "bin0+bin1" if named == "published" else "validation"
            )
            counts[str(named), selection] = counts.get((str(named), selection), 0) + 1
    return [
        {
            "protocol": protocol,
            "selection": selection,
            "meaning": _SELECTION.get(selection, f"selected on {selection}"),
            "num_runs": number,
        }
        for (protocol, selection), number in sorted(counts.items())
    ]


def page(study: Study, figures: Sequence[str], command: str) -> str:
    """The whole page."""
    parts = [f"# {title(study)}", how(study), "## Accuracy", *_accuracy(study)]
    parts += _pictures([name for name in figures if name == "accuracy_heat_map.png"])
    parts += _published(study)
    if any(cell.horizon() for cell in study.cells.values()):
        parts += ["## Horizon", *_horizon(study)]
        parts += _pictures([name for name in figures if name == "horizon_curves.png"])
    if "learning_curves.png" in figures:
        parts += ["## Learning", *_pictures(["learning_curves.png"])]
    return whole([*parts, *ending(study, command)])


def ending(study: Study, command: str, task: str = "language") -> list[str]:
    """The last sections of a page; `task` is what the tasks are called."""
    return [
        "## Configurations",
        configuration_table(study, task),
        _configuration_note(),
        "## Runs without a result",
        _failures(study),
        "## Make this page again",
        f"```\n{command}\n```",
    ]


def whole(parts: Iterable[str]) -> str:
    """The page: its parts but for empty ones, a line between them."""
    return "\n\n".join(part for part in parts if part) + "\n"


def how(study: Study) -> str:
    """Protocols, machines and number of results, one line each."""
    lines = []
    found = protocols(study)
    for entry in found:
        number = f" ({entry['num_runs']} runs)" if len(found) > 1 else ""
        lines.append(f"- Protocol: {entry['protocol']}{number}. Models were {entry['meaning']}.")
    lines += machine_lines(study.runs)
    done = sum(run.status == "done" for run in study.runs)
    lines.append(f"- Runs: {done} of {len(study.runs)} have a result.")
    return "\n".join(lines)


def _accuracy(study: Study) -> list[str]:
    note = (
        "Sequence accuracy in %: a string counts when every position is right. "
        "`Bin 0 / Bin 1`, mean ± sample standard deviation (number of finished seeds); one seed "
        "has no deviation. Bin 0 has the training lengths, Bin 1 longer strings: "
    )
    lengths = [
        f"{language_name(language).markdown} {low[0]}–{low[1]} and {high[0]}–{high[1]}"
        for language in study.languages
        if (windows := study.windows(language))
        for low, high in [(windows.bin0, windows.bin1)]
    ]
    note = note + ", ".join(lengths) if lengths else note.removesuffix(": ")
    single = len(study.languages) == 1
    return [note + ".", side_by_side_table(study) if single else accuracy_table(study)]


def _published(study: Study) -> list[str]:
    """One language has its claims in the first table already."""
    if not has_claims(study):
        return []
    table = "" if len(study.languages) == 1 else published_table(study)
    return ["### Published and expected", table, _key(study), _compared(study)]


def _key(study: Study) -> str:
    """What the letters in the published claims mean; only those that occur."""
    keys = claim_keys(study)
    lines = [
        "The tables of Irie, Csordás and Schmidhuber (2023) are not available to us. Numbers are "
        "published accuracies (Bin 0 / Bin 1, %) with their source; the word after them is what "
        "theory lets one expect.",
        "",
    ]
    lines += [f"- *{name}*: {EXPECTATIONS[name]}." for name in keys.expectations]
    lines += [f"- [{key}] {EVIDENCE[key]}." for key in keys.evidence]
    lines += [f"- {key}: {THEORY[key]}." for key in keys.theory]
    return "\n".join(lines)


def _compared(study: Study) -> str:
    compared, different = disagreements(study)
    if not compared:
        return ""
    head = (
        f"Against theory: {compared - len(different)} of {compared} measured cells with the "
        "expectation *solves* or *fails* came out so (solved: mean Bin 1 accuracy of at least "
        f"{100 * SOLVED:g} %)."
    )
    if not different:
        return head
    lines = [
        f"- {language_name(entry['language']).markdown}, {model_name(entry['model']).markdown}: "
        f"expected *{entry['expected']}* ({entry['reasons']}), Bin 1 is {entry['measured']} %."
        for entry in different
    ]
    return "\n".join([head + " The others:", "", *lines])


def _horizon(study: Study) -> list[str]:
    horizons = [
        run.result.horizon
        for cell in study.cells.values()
        for run in cell.done
        if run.result and run.result.horizon
    ]
    thresholds = sorted({horizon.threshold for horizon in horizons})
    shown = " or ".join(f"{100 * threshold:g} %" for threshold in thresholds)
    note = (
        f"Longest tested length up to which sequence accuracy never falls below {shown}, from the "
        "worst to the best seed; `≥` where no longer string was tried, `none` where the shortest "
        "fails."
    )
    return [note] if len(study.languages) == 1 else [note, horizon_table(study)]


def _pictures(names: Sequence[str]) -> list[str]:
    parts = []
    for name in names:
        heading, caption = _CAPTIONS[name]
        parts += [f"![{heading}]({name})", caption]
    return parts


def _configuration_note() -> str:
    return "`–`: the layer's default, not applicable, or no finished run. Ranges are over seeds."


def _failures(study: Study) -> str:
    missing = [run for run in study.runs if run.status != "done"]
    if not missing:
        return "None."
    return "\n".join(
        f"- {language_name(run.task).markdown}, {model_name(run.model).markdown}, "
        f"seed {run.seed}, {run.status}: {escape_markdown(run.error or '')}"
        for run in missing
    )
