"""Accuracy by length for the terminal: rows models, columns the bins and the horizon's lengths."""

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from fastweights.report.cells import Cell, Spread, Study
from fastweights.report.names import language_name, model_name
from fastweights.report.percent import percent_short

_WIDTH = 80  # characters that the table keeps to, where the names allow it


def accuracy_by_length(study: Study) -> Table:
    """Sequence accuracy in %, mean over the finished seeds."""
    names = {model: model_name(model).plain for model in study.models}
    room = max(2, (_WIDTH - max(map(len, names.values())) - 18) // 5)  # 18: unfinished, two bins
    lengths = shown_lengths(
        sorted({length for cell in study.cells.values() for length in cell.horizon()}), room
    )
    single = len(study.languages) == 1
    headers = ["model", *_bin_headers(study), *map(str, lengths)]
    table = titled_table(_title(study), missing_caption(study), headers)
    for language in study.languages:
        if not single:
            table.add_row(Text(language_name(language).plain, style="bold"))
        for model in study.models:
            if (language, model) in study.cells:
                table.add_row(*_row(study.cells[language, model], lengths))
        if not single:
            table.add_section()
    return table


def titled_table(title: str, caption: str | None, headers: Sequence[str]) -> Table:
    """Without lines but the one below the headers; the first column to the left, others right."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption=caption,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for number, header in enumerate(headers):
        table.add_column(header, justify="right" if number else "left", no_wrap=True)
    return table


def shown_lengths(lengths: list[int], room: int) -> list[int]:
    """At most `room` (at least 2) of the lengths, evenly picked, with the first and the last."""
    if len(lengths) <= room:
        return lengths
    last = len(lengths) - 1
    return [lengths[round(i * last / (room - 1))] for i in range(room)]


def _title(study: Study) -> str:
    single = len(study.languages) == 1
    what = f"{language_name(study.languages[0]).plain}: sequence" if single else "Sequence"
    seeds = {len(cell.runs) for cell in study.cells.values()}
    low, high = min(seeds), max(seeds)
    number = str(low) if low == high else f"{low} to {high}"
    return f"{what} accuracy, % ({number} seed{'s' if high > 1 else ''})"


def missing_caption(study: Study) -> str | None:
    """What `model_text` means, where a run is not finished."""
    missing = any(len(cell.done) < len(cell.runs) for cell in study.cells.values())
    return "n/m: n of m seeds finished" if missing else None


def _bin_headers(study: Study) -> list[str]:
    windows = study.windows(study.languages[0]) if len(study.languages) == 1 else None
    if windows is None:
        return ["Bin 0", "Bin 1"]
    return [f"{low}-{high}" for low, high in (windows.bin0, windows.bin1)]


def _row(cell: Cell, lengths: list[int]) -> list[Text]:
    horizon = cell.horizon()
    values = [cell.accuracy("bin0"), cell.accuracy("bin1")]
    values += [Spread.of(horizon.get(length, [])) for length in lengths]
    return [model_text(cell), *map(accuracy_text, values)]


def model_text(cell: Cell) -> Text:
    """A model's name, with `2/3` after it where one of three seeds did not finish."""
    done, asked = len(cell.done), len(cell.runs)
    name = Text(model_name(cell.model).plain)
    if done < asked:
        name.append(f" {done}/{asked}", style="dim")
    return name


def accuracy_text(value: Spread | None) -> Text:
    """Perfect stands out, failed steps back; a missing number is a dash."""
    if value is None:
        return Text("–", style="dim")
    style = "bold green" if value.mean >= 0.99 else "dim" if value.mean < 0.01 else ""
    return Text(percent_short(value.mean), style=style)
