"""Dataclasses whose fields are checked against their types: a file's schema, an experiment's.

And values of files to text that can be shown.
"""

from __future__ import annotations

import dataclasses
import reprlib
import sys
import types
import unicodedata
from collections.abc import Callable, Mapping
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from src.system.errors import InputError

Record = TypeVar("Record")

UNIONS = (Union, types.UnionType)
TYPE_NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "True or False",
              types.NoneType: "None"}  # fmt: skip
MAX_SHOWN = 60  # characters of a wrong value in a message
MAX_CAUSE = 300  # characters of another program's message, which may quote a file
MAX_SHOWN_LEVELS = 4  # of lists within lists
UNSHOWN = ("Cc", "Cs", "Zl", "Zp")  # of Unicode: controls, surrogates, separators of lines


class Rule(NamedTuple):
    """What a value may be, beside its type: `Annotated[int, Rule(...)]`.

    Attributes:
        holds: says whether it holds for a value of the right type.
        words: what is right, for the message.
    """

    holds: Callable[[Any], bool]
    words: str


def build_record(kind: type[Record], values: object) -> Record:
    """Build a dataclass from the values of a JSON object.

    Args:
        kind: a dataclass; its fields may be text, numbers, tuples, literals, optional ones, other
            dataclasses, and any of these `Annotated` with a `Rule`.
        values: field -> value; what is missing takes the field's default.

    Raises:
        ValueError: this is no object, a field is unknown or missing, or has a wrong value; the
            message names the field.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{show_value(values)} is not an object")
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = [str(name) for name in values if name not in fields]
    if unknown:
        raise ValueError(f"unknown field {show_value(unknown[0])}")
    hints = get_type_hints(kind, include_extras=True)
    given = {name: _convert(name, value, hints[name]) for name, value in values.items()}
    for name, field in fields.items():
        has_default = (
            field.default is not dataclasses.MISSING
            or field.default_factory is not dataclasses.MISSING
        )
        if name not in given and not has_default:
            raise ValueError(f"field {name} is missing")
    return kind(**given)


def check_fields(record: object) -> None:
    """Make sure that every field of a dataclass is what its type says.

    Raises:
        InputError: a field is not; the message gives its name, its value and what is right.
    """
    for name, hint in get_type_hints(type(record), include_extras=True).items():
        _check(name, getattr(record, name), hint)


def fits(value: object, hint: Any) -> bool:  # noqa: ANN401 - a type, or what typing makes of it
    """Say whether a value has the type that a field declares; a bool is no number."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin is Annotated:
        return fits(value, arguments[0]) and bool(arguments[1].holds(value))
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in arguments)
    if origin in UNIONS:
        return any(fits(value, argument) for argument in arguments)
    if origin is tuple:
        return isinstance(value, tuple) and all(fits(item, arguments[0]) for item in value)
    if isinstance(value, bool) and hint in (int, float):
        return False
    if hint is float and isinstance(value, int):
        return abs(value) <= sys.float_info.max
    return isinstance(value, get_origin(hint) or hint)


class _ShortRepr(reprlib.Repr):
    """Writes the beginning of a value; takes no time over what lies behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = MAX_SHOWN_LEVELS
        self.maxstring = self.maxlong = self.maxother = 10 * MAX_SHOWN

    def repr1(self, x: Any, level: int) -> str:  # noqa: ANN401 - as in reprlib
        if level <= 0 and isinstance(x, list | tuple | dict | set | frozenset):
            raise RecursionError("nested too deeply to be shown")
        return super().repr1(x, level)


def show_value(value: object) -> str:
    """Write a wrong value for a message, cut to a bearable length."""
    try:
        text = _ShortRepr().repr(value)
    except (ValueError, RecursionError):  # an int of thousands of digits, or nesting without end
        text = f"a value of type {type(value).__name__}"
    return cut_text(text)


def cut_text(text: str, length: int = MAX_SHOWN) -> str:
    """Cut a text that comes from a file to a length that a message can hold."""
    return text if len(text) <= length else f"{text[:length]}..."


def printable(text: str) -> str:
    """Write as escapes what no terminal and no figure can show, and what would act on a terminal.

    These are control characters, ends of lines, and the bytes of file names that are no text.
    """
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in UNSHOWN else char
        for char in text
    )


def _convert(name: str, value: object, hint: Any) -> object:  # noqa: ANN401
    """Turn lists into tuples and objects into the records that a field declares."""
    for option in get_args(hint) if get_origin(hint) in UNIONS else (hint,):
        kind = get_args(option)[0] if get_origin(option) is Annotated else option
        if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
            return build_record(kind, value)  # type: ignore[arg-type]
        if get_origin(kind) is tuple and isinstance(value, list):
            value = tuple(_convert(name, item, get_args(kind)[0]) for item in value)
    _check(name, value, hint)
    return value


def _check(name: str, value: object, hint: Any) -> None:  # noqa: ANN401
    if not fits(value, hint):
        raise InputError(f"{name} cannot be {show_value(value)}; it must be {_describe(hint)}")


def _describe(hint: Any) -> str:  # noqa: ANN401
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return str(arguments[1].words)
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin in UNIONS:
        return " or ".join(map(_describe, arguments))
    if origin is tuple:
        return f"a list, each {_describe(arguments[0])}"
    return TYPE_NAMES.get(hint, "an object")
