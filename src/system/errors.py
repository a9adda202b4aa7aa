"""Errors that a user can mend, and the wish to stop; commands report both in one line."""

from __future__ import annotations

EXIT_USER_ERROR = 2
SIGNAL_EXIT = 128  # plus the signal's number, as shells do


class InputError(ValueError):
    """A wrong flag, path or file; the message says what, where and what would be right."""


class Interrupted(Exception):  # noqa: N818 - the user's wish, no error
    """The program stopped on a signal; the message says how to go on."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number
