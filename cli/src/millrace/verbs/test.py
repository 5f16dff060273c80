"""`millrace test`: run pytest. The root pyproject.toml configures it."""

import argparse
import os
import sys

from millrace.machine.checkout import repository

WHOLE_SUITE = ("-n", "auto", "--dist", "loadfile")
"""A process a core, since most tests wait for servers and signals. The tests of a file share their servers."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `millrace test`: those of pytest."""
    parser.set_defaults(rest=[])


def run(args: argparse.Namespace) -> int:
    """Replace this process by pytest, in the repository's root: with the arguments given, or with all tests."""
    os.chdir(repository())
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *(args.rest or WHOLE_SUITE)])
