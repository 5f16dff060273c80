"""
Entry of the command line: runs the verb and prints its failure as one line. The work of the verbs is in their modules.

A verb is a module with `add_arguments(parser)` and `run(args) -> int`, listed once in `VERBS`. Only the module of the
verb that was asked for is imported, so that `--help` does not wait for the libraries of the others.
"""

import argparse
import importlib
import importlib.metadata
import os
import signal
import sys
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from shared.errors import MillraceError


class Verb(NamedTuple):
    """A line of `millrace --help`, and the module behind it."""

    name: str
    module: str
    help: str


class VerbModule(Protocol):
    """Functions of the module of a verb."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """
        Declare the verb's arguments; called before `run`, also for `--help`.

        A verb that passes unknown arguments on to another program sets the default `rest=[]`.
        """

    def run(self, args: argparse.Namespace) -> int:
        """
        Do the verb's work and return the exit code.

        Raises:
            MillraceError: Its message is what the operator sees.
        """


VERBS = (
    Verb("demo", "millrace.demo", "walk one story through a mesh of its own and check every step"),
    Verb("up", "millrace.verbs.up", "run the mesh on this machine; data stays in .millrace/"),
    Verb("apply", "millrace.verbs.apply", "show what a configuration file changes, and change it"),
    Verb("app", "millrace.verbs.app", "show what an app has configured in all services, and delete it"),
    Verb("token", "millrace.verbs.token", "create, list and revoke the tokens of the HTTP interface"),
    Verb("status", "millrace.verbs.status", "show what runs, and whether it is well"),
    Verb("alerts", "millrace.verbs.alerts", "show what the services alerted, the last ones and those that come"),
    Verb("provision", "millrace.verbs.provision", "make and put right what the mesh keeps in NATS"),
    Verb("rekey", "millrace.verbs.rekey", "encrypt and sign every stored entry with the newest key"),
    Verb("sign", "millrace.verbs.sign", "show the stored entries without a signature, and sign those that are named"),
    Verb(
        "nats-config",
        "millrace.verbs.nats_config",
        "print the nats-server configuration with every service's permissions",
    ),
    Verb("check", "millrace.verbs.check", "format, lint, types, import rules, and that generated files are current"),
    Verb("test", "millrace.verbs.test", "run pytest; takes pytest's arguments"),
    Verb("bench", "millrace.verbs.bench", "measure this mesh and the alternatives on this machine"),
    Verb("lock", "millrace.generated.lock", "write requirements.lock from what the rooms ask for"),
)


def overview() -> str:
    """The text of `millrace --help`."""
    width = max(len(verb.name) for verb in VERBS)
    lines = (f"  {verb.name:<{width}}  {verb.help}" for verb in VERBS)
    return "\n".join(
        (
            "usage: millrace VERB [arguments]",
            "",
            *lines,
            "",
            "`millrace VERB --help` tells the arguments of a verb, `millrace --version` the version.",
        )
    )


def run_verb(verb: Verb, argv: Sequence[str]) -> int:
    """Run one verb; the arguments are those after its name."""
    module: VerbModule = importlib.import_module(verb.module)
    parser = argparse.ArgumentParser(prog=f"millrace {verb.name}", description=verb.help, allow_abbrev=False)
    module.add_arguments(parser)
    args, rest = parser.parse_known_args(argv)
    if rest and "rest" not in args:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    args.rest = rest
    return module.run(args)


def main() -> int:
    """Run the command line of this process and return its exit code: 2 for a wrong argument, 130 for Ctrl-C."""
    # A shell lets its background jobs ignore SIGINT, but one that is sent by name is meant. It may come while the
    # libraries of the verb are imported, some of which run programs.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    argv = sys.argv[1:]
    try:
        code = _run(argv)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read the output has gone. What is left in the buffer would fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except MillraceError as error:
        print(f"millrace: {f'{error.field}: ' if error.field else ''}{error}", file=sys.stderr)
        return 1
    except OSError as error:
        # A verb works on files and ports that the operator named.
        print(f"millrace: {f'{error.filename}: ' if error.filename else ''}{error.strerror or error}", file=sys.stderr)
        return 1


def _run(argv: Sequence[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(overview(), file=sys.stdout if argv else sys.stderr)
        return 0 if argv else 2
    if argv[0] in ("-V", "--version"):
        print(f"millrace {importlib.metadata.version('millrace')}")
        return 0
    verb = next((verb for verb in VERBS if verb.name == argv[0]), None)
    if verb is None:
        print(f"millrace: there is no verb {argv[0]!r}; `millrace --help` lists them", file=sys.stderr)
        return 2
    return run_verb(verb, argv[1:])


if __name__ == "__main__":
    sys.exit(main())
