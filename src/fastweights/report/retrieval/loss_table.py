"""Final losses for the terminal: rows memories, columns numbers of keys."""

import math

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from fastweights.report.length_table import shown_lengths
from fastweights.report.retrieval.agreement import agrees
from fastweights.report.retrieval.memory import memory_name
from fastweights.report.retrieval.page import HEADINGS
from fastweights.report.retrieval.study import Point, RetrievalStudy
from fastweights.report.retrieval.tables import loss_text

_ROOM = 7  # columns in 80 characters


def loss_by_size(study: RetrievalStudy) -> Group:
    """One table a setting: mean over the finished seeds, at a few of the sizes."""
    return Group(*(_table(study, setting) for setting in study.settings))


def _table(study: RetrievalStudy, setting: int) -> Table:
    table = Table(
        title=f"{HEADINGS[setting]}, squared error by number of keys",
        title_justify="left",
        title_style="bold",
        caption="≠: does not agree with what is published",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    sizes = shown_lengths(study.sizes(setting), _ROOM)
    table.add_column("memory", no_wrap=True)
    for size in sizes:
        table.add_column(str(size), justify="right", no_wrap=True)
    for model in study.models(setting):
        points = {point.num_keys: point for point in study.of_model(setting, model)}
        values = [_value(points.get(size)) for size in sizes]
        table.add_row(Text(memory_name(model).plain), *values)
    return table


def _value(point: Point | None) -> Text:
    """A missing number is a dash."""
    if point is None or point.loss is None:
        return Text("–", style="dim")
    published = point.published
    differs = published is not None and not agrees(point.loss, published.loss)
    text = "nan" if math.isnan(point.loss) else loss_text(point.loss)
    return Text(text + ("≠" if differs else ""))
