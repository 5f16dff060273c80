"""
Output of a verb: lines, tables, and colours and a spinner where there is a terminal. The verbs decide what is printed.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console as RichConsole
from rich.table import Table
from rich.text import Text

MARKS = {True: ("ok", "green"), False: ("FAILED", "bold red")}


class Console:
    """Prints to stdout, or to stderr where stdout is kept for a document."""

    def __init__(self, *, to_stderr: bool = False) -> None:
        self._console = RichConsole(stderr=to_stderr, highlight=False, soft_wrap=True)

    def print_line(self, text: str, *, style: str = "") -> None:
        """Print one line, or several."""
        self._console.print(Text(text, style=style))

    def result(self, ok: bool, text: str) -> None:
        """Print a line that begins with `ok` or `FAILED`."""
        word, style = MARKS[ok]
        self._console.print(Text.assemble((f"{word:<6}", style), "  ", text))

    @contextmanager
    def spinner(self, text: str) -> Iterator[None]:
        """Show a spinner during the block. Without a terminal nothing is shown: the next line reports the result."""
        if self._console.is_terminal:
            with self._console.status(Text(text)):
                yield
        else:
            yield

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[str | bool]]) -> None:
        """Print a table; a bool is shown as `ok` or `FAILED`. Plain columns where there is no terminal."""
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
    """Write the one JSON document of `--json` to stdout."""
    sys.stdout.write(document.decode() + "\n")
    sys.stdout.flush()
