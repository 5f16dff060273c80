"""Subjects and keys of buckets are spelled and parsed in shared.contracts alone."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.contracts.streams import STREAMS

REPOSITORY = Path(__file__).parents[3]
CONTRACTS = REPOSITORY / "shared/src/shared/contracts"
SOURCES = sorted(
    path
    for pattern in ("shared/src", "services/*/src", "cli/src")
    for path in REPOSITORY.glob(f"{pattern}/*/**/*.py")
    if CONTRACTS not in path.parents
)

FIRST_TOKENS = sorted({subject.partition(".*")[0] for stream in STREAMS for subject in stream.subjects})
"""Beginnings of the subjects of each stream, such as `push.send`."""

SUBJECT = re.compile(
    r"\$(KV|JS|SRV)\b|^("
    + "|".join(map(re.escape, FIRST_TOKENS))
    + r")\.([*>]|$)|^hooks\.(partition|member)\.|^(connectors|apps)\.\*"
)
"""A text, or the part of an f-string before its first value, that is one of a subject or key."""

PARSERS = {"split", "rsplit", "partition", "rpartition"}


def spellings(source: str) -> Iterator[str]:
    """The lines of a source file that spell a subject or a key, or take one apart."""
    tree = ast.parse(source)
    docstrings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
            if SUBJECT.search(node.value):
                yield f"{node.lineno}: {node.value!r}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in PARSERS:
            parsed = node.func.value
            if isinstance(parsed, ast.Attribute) and parsed.attr in {"subject", "key"}:
                yield f"{node.lineno}: {ast.unparse(node)}"


def test_only_the_contracts_spell_a_subject() -> None:
    found = {str(path.relative_to(REPOSITORY)): list(spellings(path.read_text())) for path in SOURCES}

    assert {} == {path: lines for path, lines in found.items() if lines}


@pytest.mark.parametrize(
    "planted",
    [
        'subject = f"$KV.{bucket}.>"',
        'key = subject.removeprefix("$KV.CONFIG.")',
        'ask(f"$JS.API.STREAM.INFO.{stream}")',
        'ask("$SRV.PING")',
        'publish(f"events.{app_key}.{partition}")',
        'scan("profile.update.*.*")',
        'publish(f"dlq.{service}.{app_key}.{owner}.{reason}")',
        'key = f"hooks.partition.{number:02d}"',
        'app_key = message.subject.split(".")[1]',
        'partition = message.subject.rpartition(".")[2]',
        'app_key, export_id = stored.key.split(".")',
        'connector = kind.removeprefix("connectors.*.")',
    ],
)
def test_rule_finds_a_planted_line(planted: str) -> None:
    source = SOURCES[0].read_text()

    assert not list(spellings(source))
    assert [planted] == [
        f"{source}\n{planted}\n".splitlines()[int(line.split(":")[0]) - 1]
        for line in spellings(f"{source}\n{planted}\n")
    ]


def test_rule_lets_a_docstring_tell_of_a_subject() -> None:
    assert not list(spellings('"""Messages on `events.<app>.<partition>`, as `$JS.ACK` says."""\n'))
