"""Facts with their sources in a terminal: three columns where they fit, else each source below its value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table

_SOURCE_WIDTH = 40
"""A column of sources narrower than this is hard to read."""
_VALUE_WIDTH = 30
_RULES = 8  # characters between columns
SAME_SOURCE = "source as above"


@dataclass(frozen=True)
class SourcedFacts:
    """(name, value, source) rows under a title, laid out by the width of the terminal."""

    title: str
    rows: Sequence[tuple[str, str, str]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        names = max(len(name) for name, _, _ in self.rows)
        values = min(_VALUE_WIDTH, max(len(value) for _, value, _ in self.rows))
        if options.max_width >= names + values + _RULES + _SOURCE_WIDTH:
            yield table(self.title, ("", "value", "source"), self.rows)
        else:
            yield from self._below(min(names, options.max_width - 24))

    def _below(self, aligned: int) -> Iterator[RenderableType]:
        """Values beside their names, in a column if the names are short; a source that several have in a row once."""
        from rich.padding import Padding
        from rich.table import Table as RichTable
        from rich.text import Text

        yield Text(self.title, style="bold")
        before = ""
        for name, value, source in self.rows:
            again = bool(source) and source == before
            row = RichTable.grid(padding=(0, 2, 0, 0))
            row.add_column(min_width=aligned, no_wrap=True)
            row.add_row(Text(name), Text.assemble((value, "bold"), (f"  ({SAME_SOURCE})" if again else "", "dim")))
            yield row
            if source and not again:
                yield Padding(Text(source, style="dim"), (0, 0, 0, 4), expand=False)
            before = source


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A plain table; cells are texts, not markup."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table as RichTable

    drawn = RichTable(title=escape(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for index, column in enumerate(columns):
        drawn.add_column(column, no_wrap=index == 0, overflow="fold")
    for row in rows:
        drawn.add_row(*(escape(cell) for cell in row))
    return drawn
