"""
Line of each key of a TOML document, for error messages.

The scanner reads a document that `tomllib` has accepted, so it checks nothing. The values come from `tomllib`.
"""

import re
import tomllib
from bisect import bisect_right

Path = tuple[str | int, ...]
"""Keys and, inside arrays, positions: `("apps", "shop", "hooks", 0, "id")`."""

_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?""""{0,2}'  # a closing delimiter may have two quotes of the text right before it
    r"|'''.*?''''{0,2}"
    r'|"(?:[^"\\]|\\.)*"'
    r"|'[^']*'",
    re.DOTALL,
)
_PLAIN = re.compile(r"[^,\]}#\r\n]+")
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


def key_lines(text: str) -> dict[Path, int]:
    """
    The line, from 1, of every key and every table that is written out; a table that is only implied has none.

    `text` is a document that `tomllib.loads` accepts.
    """
    scanner = _Scanner(text)
    scanner.document()
    return scanner.lines


def line_of(lines: dict[Path, int], path: Path) -> int:
    """The line of `path`, or of the nearest thing around it that has one, or 1."""
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return 1


def dotted(path: Path) -> str:
    """`apps.shop.rows[3].text`: a path as a person reads it, and as services name a field."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


def path_from_dotted(text: str) -> Path:
    """Parse a dotted path; stop where the text is no longer a path, such as msgspec's `[...]`."""
    steps: list[str | int] = []
    for part in text.split("."):
        found = list(_STEP.finditer(part))
        steps += [int(match[2]) if match[2] else match[1] for match in found]
        if "".join(match[0] for match in found) != part:
            break
    return tuple(steps)


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Path, int] = {}
        self._line_ends = [match.start() for match in re.finditer("\n", text)]
        self._tables_in: dict[Path, int] = {}

    def document(self) -> None:
        table: Path = ()
        while self._skip(_BLANK):
            line = self._line()
            if self._expect("[["):
                path = self._resolved(self._keys(), last=False)
                self._expect("]]")
                index = self._tables_in.get(path, 0)
                self._tables_in[path] = index + 1
                self.lines.setdefault(path, line)
                table = (*path, index)
                self.lines[table] = line
            elif self._expect("["):
                table = self._resolved(self._keys(), last=True)
                self._expect("]")
                self.lines[table] = line
            else:
                self._pair(table)

    def _pair(self, table: Path) -> None:
        line = self._line()
        path = table
        for key in self._keys():
            path = (*path, key)
            self.lines.setdefault(path, line)
        self._expect("=")
        self._value(path)

    def _value(self, path: Path) -> None:
        self._skip(_BLANK)
        if self._expect("["):
            index = 0
            while not self._closed("]"):
                self.lines[(*path, index)] = self._line()
                self._value((*path, index))
                index += 1
        elif self._expect("{"):
            while not self._closed("}"):
                self._pair(path)
        elif not self._matched(_STRING):
            self._matched(_PLAIN)

    def _closed(self, bracket: str) -> bool:
        """Go to the next element; True at the end of them."""
        self._skip(_BLANK)
        if self._expect(","):
            self._skip(_BLANK)
        return self._expect(bracket)

    def _keys(self) -> list[str]:
        keys: list[str] = []
        while True:
            self._skip(_SPACE)
            if quoted := self._matched(_STRING):
                keys.append(next(iter(tomllib.loads(f"{quoted} = 0"))))
            else:
                keys.append(self._matched(_BARE_KEY))
            self._skip(_SPACE)
            if not self._expect("."):
                return keys

    def _resolved(self, keys: list[str], *, last: bool) -> Path:
        """A header's path; under an array of tables it means the newest one."""
        path: Path = ()
        for number, key in enumerate(keys, start=1):
            path = (*path, key)
            if path in self._tables_in and (last or number < len(keys)):
                path = (*path, self._tables_in[path] - 1)
        return path

    def _skip(self, pattern: re.Pattern[str]) -> bool:
        """Step over what matches; False at the end of the text."""
        self._matched(pattern)
        return self.at < len(self.text)

    def _matched(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        if match is None:
            return ""
        self.at = match.end()
        return match[0]

    def _expect(self, token: str) -> bool:
        if self.text.startswith(token, self.at):
            self.at += len(token)
            return True
        return False

    def _line(self) -> int:
        return bisect_right(self._line_ends, self.at - 1) + 1
