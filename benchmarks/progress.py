"""What a benchmark shows while it runs, on stderr."""

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress


class Progress:
    """A bar over the units with what is going on; on anything but a terminal, a line a unit."""

    def __init__(self, num_units: int, num_missing: int) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bar = RichProgress(
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}", markup=False),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID = self._bar.add_task(
            "", total=num_units, completed=num_units - num_missing
        )
        self._unit = ""
        before = f" ({num_units - num_missing} done before)" if num_missing < num_units else ""
        self._console.print(f"{num_units} units{before}", markup=False)

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def begin(self, unit: str) -> None:
        """A unit begins."""
        self._unit = unit
        self.now("")

    def now(self, what: str) -> None:
        """What it is doing."""
        self._bar.update(self._task, description=f"{self._unit}  {what}")

    def end(self, wall_s: float) -> None:
        """It is done."""
        self._bar.update(self._task, advance=1)
        self._console.print(f"{self._unit}  {wall_s:.1f} s", markup=False, soft_wrap=True)
