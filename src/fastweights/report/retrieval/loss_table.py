"""Final losses for the terminal: rows memories, columns numbers of keys."""

import math

from rich.console import Group
from rich.table import Table
from rich.text import Text

from fastweights.report.length_table import shown_lengths, titled_table
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
    sizes = shown_lengths(study.sizes(setting), _ROOM)
    table = titled_table(
        f"{HEADINGS[setting]}, squared error by number of keys",
        "≠: does not agree with what is published",
        ["memory", *map(str, sizes)],
    )
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
