"""
Output of a long run: lines as it goes, tables at the end; colours and a spinner where there is a terminal.

What is said, and when, is the verb's business.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console as RichConsole
from rich.table import Table
from rich.text import Text

MARKS = {True: ("ok", "green"), False: ("FAILED", "bold red")}


class Console:
    """Tells on stdout, or on stderr where stdout is kept for a document."""

    def __init__(self, *, to_stderr: bool = False) -> None:
        self._console = RichConsole(stderr=to_stderr, highlight=False, soft_wrap=True)

    def print_line(self, text: str, *, style: str = "") -> None:
        """One line, or several."""
        self._console.print(Text(text, style=style))

    def result(self, ok: bool, text: str) -> None:
        """A line that begins with how it went."""
        word, style = MARKS[ok]
        self._console.print(Text.assemble((f"{word:<6}", style), "  ", text))

    @contextmanager
    def spinner(self, text: str) -> Iterator[None]:
        """Show that something goes on. Nothing is shown where there is no terminal: the line that follows tells it."""
        if self._console.is_terminal:
            with self._console.status(Text(text)):
                yield
        else:
            yield

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[str | bool]]) -> None:
        """A table; a truth value is shown as how it went. Plain columns where there is no terminal."""
        if self._console.is_terminal:
            table = Table(*headings)
            for row in rows:
                table.add_row(*(Text(*MARKS[cell]) if isinstance(cell, bool) else Text(cell) for cell in row))
            self._console.print(table)
            return
        cells = [
            list(headings),
            *([MARKS[cell][0] if isinstance(cell, bool) else cell for cell in row] for row in rows),
        ]
        widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
        for row in cells:
            self.print_line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def write_document(document: bytes) -> None:
    """The one JSON document of `--json`, on stdout."""
    sys.stdout.write(document.decode() + "\n")
    sys.stdout.flush()
