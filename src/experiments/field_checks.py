"""Check the fields of a record against their type hints, wherever its values come from."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from src.system.errors import InputError
from src.system.records import show_value

NAMES = {int: "a whole number", float: "a finite number", str: "a text", bool: "True or False",
         NoneType: "None"}  # fmt: skip
UNIONS = (Union, UnionType)  # as X | None is kept, with and without Annotated in it


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

    Hints are plain types, `Annotated` with a `Rule`, `Literal`, `X | None` and `tuple[X, ...]`.

    Raises:
        InputError: a field is not; the message gives its name, its value and what is right.
    """
    for name, hint in get_type_hints(type(record), include_extras=True).items():
        value = getattr(record, name)
        if not _fits(value, hint):
            raise InputError(f"{name} cannot be {show_value(value)}; it must be {_describe(hint)}")


def _fits(value: Any, hint: Any) -> bool:  # noqa: ANN401 - any value; a type or what typing makes
    kind, parts = get_origin(hint), get_args(hint)
    if kind is Annotated:
        return _fits(value, parts[0]) and parts[1].holds(value)
    if kind is Literal:
        return value in parts
    if kind in UNIONS:
        return any(_fits(value, part) for part in parts)
    if kind is tuple:
        return isinstance(value, tuple) and all(_fits(item, parts[0]) for item in value)
    if hint is float:  # may be given as a whole number
        return type(value) in (int, float) and -math.inf < value < math.inf
    return type(value) is hint  # True is no whole number


def _describe(hint: Any) -> str:  # noqa: ANN401 - as in `_fits`
    kind, parts = get_origin(hint), get_args(hint)
    if kind is Annotated:
        return str(parts[1].words)
    if kind is Literal:
        return " or ".join(map(repr, parts))
    if kind in UNIONS:
        return " or ".join(map(_describe, parts))
    return NAMES.get(hint, str(hint))
