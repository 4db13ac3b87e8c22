"""Tables on the terminal."""

from rich import box
from rich.table import Table


def plain_table(first: str, *others: str) -> Table:
    """An empty table: first column to the left, the others to the right, a line under the head."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table
