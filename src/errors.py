"""The one kind of error that is the user's to mend, and how commands report it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells do


class InputError(ValueError):
    """A wrong flag, path or file; the message says what, where and what would be right."""


@contextmanager
def report_errors() -> Iterator[None]:
    """Turn an InputError into one line on standard error and exit code 2.

    Everything else keeps its traceback. Warnings come out as single lines as well.
    """
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"  # type: ignore[assignment]
    try:
        yield
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
