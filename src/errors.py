"""The one kind of error that is the user's to mend, and how commands report it."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells do


class InputError(ValueError):
    """A wrong flag, path or file; the message says what, where and what would be right."""


class CommandParser(argparse.ArgumentParser):
    """An argument parser that takes no abbreviations and reports a mistake in one line."""

    def __init__(
        self, description: str | None = None, *, prog: str | None = None, **_unused: object
    ) -> None:
        # Python 3.14 hands the parser of a subcommand more than prog.
        super().__init__(
            prog=prog,
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USER_ERROR, f"error: {message}; see --help\n")


@contextmanager
def report_errors() -> Iterator[None]:
    """Turn an InputError into one line on standard error and exit code 2.

    Everything else keeps its traceback. Warnings come out as single lines as well.
    """
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    try:
        yield
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
