"""Standard output and standard error: every text can be printed, and no closed stream does harm."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from src.system.records import cut_text, printable

MAX_MESSAGE = 5000  # characters; the longest path has 4,096


def open_streams() -> None:
    """Make standard input, output and error fit for all that a command does after this.

    Characters that a stream cannot show, such as those of file names that are no text, are written
    as escapes. A stream that is closed (`2>&-`) becomes the null device: else the next file that is
    opened would take its number, and what a library prints would go into that file.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = Path(os.devnull).open(mode)  # noqa: SIM115 - open to the end
            os.set_inheritable(stream.fileno(), True)  # by worker processes
            setattr(sys, name, stream)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def is_open(stream: TextIO | None) -> bool:
    """Say whether a standard stream was open when the program began."""
    return stream is not None and getattr(stream, "name", "") != os.devnull


def one_line(message: object) -> str:
    """Write a message as one line that a terminal can show."""
    return cut_text(printable(" ".join(str(message).split())), MAX_MESSAGE)


def tell(message: object) -> None:
    """Print one line on standard error; where that is closed or full, on standard output."""
    for stream in (sys.stderr, sys.stdout):
        if is_open(stream) and fault_of(stream, f"{one_line(message)}\n") is None:
            return


def fault_of(stream: TextIO, text: str) -> OSError | None:
    """Write text, and what waits to be written; return why this fails, None if it does not.

    What cannot be written is discarded, so that Python can flush the stream at its end.
    """
    try:
        stream.write(text)
        stream.flush()
    except OSError as fault:
        with suppress(OSError):  # a stream that is no file
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return fault
    return None
