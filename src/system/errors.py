"""Errors that a user can mend, and the wish to stop; commands report both in one line."""

from __future__ import annotations

EXIT_USER_ERROR = 2
EXIT_TIME_IS_UP = 75  # EX_TEMPFAIL of sysexits.h: the same command goes on later
SIGNAL_EXIT = 128  # plus the signal's number, as shells do


class InputError(ValueError):
    """A wrong flag, path or file; the message says what, where and what would be right."""


class Interrupted(Exception):  # noqa: N818 - the user's wish, no error
    """The program stopped on a signal, or because its time was up; the message says how to go on.

    Attributes:
        exit_code: of the command.
    """

    def __init__(self, message: str, signal_number: int | None = None) -> None:
        """Take the signal; None where the time was up."""
        super().__init__(message)
        self.exit_code = EXIT_TIME_IS_UP if signal_number is None else SIGNAL_EXIT + signal_number
