"""`millrace test`: become pytest, arguments as they are. The root pyproject.toml says what is tested and how."""

import argparse
import os
import sys

from millrace.checkout import repository


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `millrace test`: those of pytest."""
    parser.set_defaults(rest=[])


def run(args: argparse.Namespace) -> int:
    """Replace this process by pytest, in the repository's root."""
    os.chdir(repository())
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *args.rest])
