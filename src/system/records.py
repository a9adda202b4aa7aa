"""Records whose fields declare what they may be, checked here wherever their values come from.

The hints of a dataclass's fields are the schema of a file, or of a table in the code: plain types,
`Annotated` with a `Rule`, `Literal`, `X | None`, `tuple[X, ...]`, `dict[X, Y]`, other dataclasses.
"""

from __future__ import annotations

import dataclasses
import reprlib
import sys
import types
from collections.abc import Callable, Mapping
from functools import cache
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
UNIONS = (Union, types.UnionType)  # as X | None is kept, with and without Annotated in it
NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "True or False",
         types.NoneType: "None", tuple: "a list", list: "a list", dict: "an object"}  # fmt: skip

MAX_SHOWN = 60  # characters of a wrong value in a message
MAX_CAUSE = 300  # characters of another program's message, which may quote a file
MAX_SHOWN_LEVELS = 4  # of lists within lists


class Rule(NamedTuple):
    """What a value may be, beside its type: `Annotated[int, Rule(...)]`.

    Attributes:
        holds: says whether it holds for a value of the right type.
        words: what is right, for the message.
    """

    holds: Callable[[Any], bool]
    words: str


def within(low: float, high: float, what: str = "a number") -> Rule:
    """Make the rule of a number that lies between two others or is one of them."""
    return Rule(lambda number: low <= number <= high, f"{what} from {low} to {high}")


def above(low: float, high: float) -> Rule:
    """Make the rule of a number that is greater than one and at most another."""
    return Rule(lambda number: low < number <= high, f"a number above {low}, at most {high}")


def check_fields(record: object) -> None:
    """Make sure that every field of a record is what its type hint says.

    Raises:
        InputError: a field is not; the message gives its name, its value and what is right.
    """
    for name, hint in _hints_of(type(record)).items():  # type: ignore[arg-type]
        value = getattr(record, name)
        if not fits(value, hint):
            raise InputError(_say_wrong(name, value, hint))


@cache
def _hints_of(kind: type[Any]) -> dict[str, Any]:
    """Return the type of each field; to work them out takes longer than to check a record."""
    return get_type_hints(kind, include_extras=True)


def build_record(kind: type[Record], values: object) -> Record:
    """Build a dataclass from the values of a JSON object.

    Args:
        kind: a dataclass.
        values: field -> value; what is missing takes the field's default.

    Raises:
        ValueError: this is no object, a field is unknown or missing, or has a value that does not
            fit; the message names the field.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{show_value(values)} is not an object")
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = [str(name) for name in values if name not in fields]
    if unknown:
        raise ValueError(f"unknown field {show_value(unknown[0])}")
    hints = _hints_of(kind)  # type: ignore[arg-type]
    given = {name: _convert(name, value, hints[name]) for name, value in values.items()}
    for name, field in fields.items():
        has_default = (
            field.default is not dataclasses.MISSING
            or field.default_factory is not dataclasses.MISSING
        )
        if name not in given and not has_default:
            raise ValueError(f"field {name} is missing")
    return kind(**given)


def fits(value: object, hint: Any) -> bool:  # noqa: ANN401 - a type, or what typing makes of it
    """Say whether a value is what a field declares; a bool is no number."""
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
    if origin is dict:
        return isinstance(value, dict) and all(
            fits(key, arguments[0]) and fits(item, arguments[1]) for key, item in value.items()
        )
    if isinstance(value, bool) and hint in (int, float):
        return False
    if hint is float and isinstance(value, int):
        return abs(value) <= sys.float_info.max
    return isinstance(value, get_origin(hint) or hint)


def read_field(kind: type[Any], name: str, text: str) -> object:
    """Read the value of a record's field from a text, such as a word of a command line.

    A list is written with commas, None as none, and True and False in upper or lower case.

    Returns:
        The value; the text itself where it is none of the types that the field may have, so that
        the record's own check names what would be right.
    """
    return _read_text(_hints_of(kind)[name], text)  # type: ignore[arg-type]


def _read_text(hint: Any, text: str) -> object:  # noqa: ANN401 - a type
    for option in _plain_types(hint):
        if get_origin(option) is Literal:
            for choice in get_args(option):
                if text == str(choice):
                    return choice
        if option is types.NoneType and text.lower() == "none":
            return None
        if option is bool and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if get_origin(option) is tuple:
            return tuple(_read_text(get_args(option)[0], part) for part in text.split(","))
        if option in (int, float):
            try:
                return option(text)
            except ValueError:
                continue
    return text


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


def _convert(name: str, value: object, hint: Any) -> object:  # noqa: ANN401
    """Turn lists into tuples and objects into the records that a field declares."""
    for option in _plain_types(hint):
        if dataclasses.is_dataclass(option) and isinstance(value, Mapping):
            return build_record(option, value)  # type: ignore[arg-type]
        if get_origin(option) is tuple and isinstance(value, list):
            value = tuple(_convert(name, item, get_args(option)[0]) for item in value)
    if not fits(value, hint):
        raise ValueError(_say_wrong(name, value, hint))
    return value


def _plain_types(hint: Any) -> list[Any]:  # noqa: ANN401
    """Return the types that a hint allows, without their rules."""
    if get_origin(hint) is Annotated:
        return _plain_types(get_args(hint)[0])
    if get_origin(hint) in UNIONS:
        return [each for option in get_args(hint) for each in _plain_types(option)]
    return [hint]


def _say_wrong(name: str, value: object, hint: Any) -> str:  # noqa: ANN401
    return f"{name} cannot be {show_value(value)}; it must be {_describe(hint)}"


def _describe(hint: Any) -> str:  # noqa: ANN401
    """Say in words what a field may be."""
    kind, parts = get_origin(hint), get_args(hint)
    if kind is Annotated:
        return str(parts[1].words)
    if kind is Literal:
        return " or ".join(map(repr, parts))
    if kind in UNIONS:
        return " or ".join(map(_describe, parts))
    return NAMES.get(kind or hint, "an object")
