"""The one kind of error that is the user's to mend, and how commands report it."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

EXIT_USER_ERROR = 2
SIGNAL_EXIT = 128  # plus the signal's number, as shells do


class InputError(ValueError):
    """A wrong flag, path or file; the message says what, where and what would be right."""


class Interrupted(Exception):  # noqa: N818 - the user's wish, no error
    """The program stopped on a signal; the message says how to go on."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults that say something; several words are quoted as on a command line."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or action.default == "":
            return action.help
        return super()._get_help_string(action)

    def _expand_help(self, action: argparse.Action) -> str:
        default = action.default
        if isinstance(default, list | tuple):
            action.default = " ".join(map(str, default))
        try:
            return super()._expand_help(action)
        finally:
            action.default = default


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
            formatter_class=_HelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USER_ERROR, f"error: {message}; see --help\n")


@contextmanager
def report_errors() -> Iterator[None]:
    """Turn an InputError into one line on standard error and exit code 2.

    Everything else keeps its traceback. Warnings come out as single lines as well. A reader of
    standard output that has left, as `| head` does, ends the program in silence; one that takes no
    more, as on a full disk, is the user's to mend.
    """
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    try:
        yield
        print(end="", flush=True)  # does nothing where standard output is closed
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(SIGNAL_EXIT + stop.signal_number)
    except OSError:
        fault = _fault_of_output()
        if fault is None:
            raise
        _drop_output()
        if isinstance(fault, BrokenPipeError):  # its reader, such as `head`, has seen enough
            sys.exit(SIGNAL_EXIT + signal.SIGPIPE)
        print(f"error: standard output cannot be written: {fault.strerror}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(SIGNAL_EXIT + signal.SIGINT)


def _fault_of_output() -> OSError | None:
    """Return why standard output cannot be written; None where it can."""
    try:
        print(flush=True)
    except OSError as fault:
        return fault
    return None


def _drop_output() -> None:
    """Let what is left in the buffer go somewhere when Python flushes it at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
