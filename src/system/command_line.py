"""Command lines: the parser, flags as typed fields, what values they take, and how a command ends.

A mistake of the user ends a command with one line on standard error and exit code 2.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import Field, field
from pathlib import Path
from typing import Any, NoReturn

from src.system.errors import EXIT_USER_ERROR, SIGNAL_EXIT, InputError, Interrupted
from src.system.streams import fault_of, is_open, open_streams, tell


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows each default that is set; one of several words as it is typed on a command line."""

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


class _Store(argparse.Action):
    """Stores the value of a flag; a flag of several words may be given again, for more of them."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,  # noqa: ANN401 - as argparse.Action
        option_string: str | None = None,
    ) -> None:
        before = getattr(namespace, self.dest)
        if isinstance(values, list) and isinstance(before, list) and before is not self.default:
            values = before + values
        setattr(namespace, self.dest, values)


class CommandParser(argparse.ArgumentParser):
    """An argument parser that accepts no abbreviations and reports a mistake in one line."""

    def __init__(
        self,
        description: str | None = None,
        *,
        prog: str | None = None,
        usage: str | None = None,
        **_unused: object,  # Python 3.14 hands the parser of a subcommand more than prog
    ) -> None:
        super().__init__(
            prog=prog,
            usage=usage,
            description=description,
            allow_abbrev=False,
            formatter_class=_HelpFormatter,
        )
        for name in (None, "store"):
            self.register("action", name, _Store)

    def error(self, message: str) -> NoReturn:
        open_streams()
        tell(f"error: {message}; see --help")
        sys.exit(EXIT_USER_ERROR)


def flag(
    actions: Sequence[str],
    text: str,
    default: object = None,
    *,
    kind: Callable[[str], object] | None = None,
    choices: Sequence[str] | None = None,
    nargs: str | None = None,
    const: object = None,
    metavar: str | None = None,
    names: Sequence[str] = (),
) -> Any:  # noqa: ANN401 - as dataclasses.field
    """Define a field of a dataclass and the flag that sets it.

    Args:
        actions: of the command, that take the flag; the others would ignore it.
        text: for --help.
        kind, choices, nargs, const, metavar: as in argparse, where `kind` is `type`.
        names: of the flag, such as --num-images; by default made of the field's name.
    """
    if metavar is None and kind is not None:
        metavar = "PATH" if kind is Path else "N"
    options = {"help": text, "type": kind, "choices": choices, "nargs": nargs, "const": const,
               "metavar": metavar}  # fmt: skip
    return field(default=default, metadata={"actions": actions, "names": names, "options": options})


def switch(actions: Sequence[str], text: str) -> Any:  # noqa: ANN401 - as dataclasses.field
    """Define a field of a dataclass and the flag without a value that makes it true."""
    options = {"help": text, "action": "store_true"}
    return field(default=False, metadata={"actions": actions, "names": (), "options": options})


def flag_of(defined: Field[Any]) -> str:
    """Return the flag that sets a field of `flag` or `switch`."""
    names = defined.metadata["names"]
    return str(names[0]) if names else f"--{defined.name.replace('_', '-')}"


def add_flag(group: argparse.ArgumentParser | argparse._ArgumentGroup, defined: Field[Any]) -> None:
    """Let a parser, or a group of its --help, take the flag of a field."""
    names = defined.metadata["names"] or (flag_of(defined),)
    options = defined.metadata["options"]
    group.add_argument(*names, dest=defined.name, default=defined.default, **options)


@contextmanager
def report_errors() -> Iterator[None]:
    """End a command that fails by a mistake of the user with one line and exit code 2.

    Such mistakes are an InputError, and whatever the operating system says about a file: it may not
    be entered, its name is too long, its disk is broken. Every other error keeps its traceback.
    Warnings are single lines as well. If the reader of standard output has left, as `| head` does,
    the program ends without a message; if standard output cannot be written, for example on a full
    disk, the message says so.
    """
    open_streams()
    try:
        yield
        print(end="", flush=True)
    except InputError as error:
        _end(EXIT_USER_ERROR, f"error: {error}")
    except Interrupted as stop:
        _end(stop.exit_code, stop)
    except OSError as error:
        if error.filename is not None:
            _end(EXIT_USER_ERROR, f"error: {name_of_file(error)}: {error.strerror or error}")
        _end_without_output()
        _tell_where_tracebacks_are_lost(error)
        raise
    except KeyboardInterrupt:
        _end(SIGNAL_EXIT + signal.SIGINT, "interrupted")
    except Exception as error:
        _tell_where_tracebacks_are_lost(error)
        raise


def name_of_file(error: OSError) -> str:
    """Return the file that an error of the operating system is about."""
    name = error.filename
    return os.fsdecode(name) if isinstance(name, str | bytes) else str(name)


def _end(code: int, message: object) -> NoReturn:
    tell(message)
    fault_of(sys.stdout, "")
    sys.exit(code)


def _end_without_output() -> None:
    """End the program if standard output or standard error cannot be written."""
    outputs = {"standard output": sys.stdout, "standard error": sys.stderr}
    for (name, stream), other in zip(outputs.items(), reversed(outputs.values()), strict=True):
        fault = fault_of(stream, "\n")
        if isinstance(fault, BrokenPipeError):  # its reader, such as `head`, has seen enough
            sys.exit(SIGNAL_EXIT + signal.SIGPIPE)
        if fault is not None:
            fault_of(other, f"error: {name} cannot be written: {fault.strerror}\n")
            sys.exit(EXIT_USER_ERROR)


def _tell_where_tracebacks_are_lost(error: Exception) -> None:
    if not is_open(sys.stderr):
        tell(f"error: {type(error).__name__}: {error}")


def natural(text: str) -> int:
    """Take a whole number from 0."""
    return _at_least(_whole(text), 0)


def positive(text: str) -> int:
    """Take a whole number from 1."""
    return _at_least(_whole(text), 1)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def _at_least(value: int, least: int) -> int:
    if value < least:
        raise argparse.ArgumentTypeError(f"{value} is less than {least}")
    return value


def below(count: int) -> Callable[[str], int]:
    """Make the type of a flag that takes a whole number from 0 to `count` - 1."""
    return between(0, count - 1)


def between(least: int, most: int) -> Callable[[str], int]:
    """Make the type of a flag that takes a whole number from `least` to `most`."""

    def number_between(text: str) -> int:
        value = _whole(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{value} is not between {least} and {most}")
        return value

    return number_between


def rate(text: str) -> float:
    """Take a learning rate."""
    value = number(text)
    if not 0 < value < 10:
        raise argparse.ArgumentTypeError(f"{text} is not a learning rate; 1e-5 is the paper's")
    return value


def number(text: str) -> float:
    """Take any finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return value


def not_negative(text: str) -> float:
    """Take a finite number from 0."""
    value = number(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is less than 0")
    return value


def above_zero(text: str) -> float:
    """Take a finite number above 0."""
    value = number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def fraction(text: str) -> float:
    """Take a number from 0 to 1."""
    value = number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def factor(text: str) -> float:
    """Take a number above 0, at most 1."""
    value = number(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value


def name_part(text: str) -> str:
    """Take text that can be part of a file's name on every system; may be empty."""
    if not re.fullmatch(r"[A-Za-z0-9._-]*", text):
        raise argparse.ArgumentTypeError(f"{text!r}: use letters, digits, '.', '_' and '-' only")
    return text


def yes_or_no(text: str) -> bool:
    """Take True or False, in upper or lower case."""
    values = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is not True or False")
    return values[text.lower()]
