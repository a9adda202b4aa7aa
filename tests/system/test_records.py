import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest

from src.system.errors import InputError
from src.system.records import (
    MAX_SHOWN,
    Rule,
    above,
    build_record,
    check_fields,
    fits,
    read_field,
    show_value,
    within,
)


@dataclass(frozen=True, kw_only=True)
class Part:
    name: str
    rate: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Whole:
    size: int
    rule: Literal["mean", "percentile"] = "mean"
    sides: tuple[int, ...] = (1, 2)
    limit: float | None = None
    part: Part | None = None
    parts: tuple[Part, ...] = ()
    notes: list[str] = field(default_factory=list)
    anything: Any = None
    counts: dict[str, float] = field(default_factory=dict)
    even: Annotated[int, Rule(lambda n: n % 2 == 0, "an even number")] = 0
    shares: Annotated[tuple[float, ...], Rule(len, "at least one number")] | None = None


def build(text):
    return build_record(Whole, json.loads(text))


def refuse(values, match):
    with pytest.raises(ValueError, match=match) as caught:
        build_record(Whole, values)
    assert len(str(caught.value)) < 200


def test_what_is_missing_takes_its_default():
    assert build('{"size": 3}') == Whole(size=3)


def test_every_field_is_taken_from_json():
    text = """{"size": 3, "rule": "percentile", "sides": [4], "limit": 1.5, "notes": ["a"],
               "part": {"name": "p"}, "parts": [{"name": "q", "rate": 1}], "anything": {"x": []}}"""
    assert build(text) == Whole(
        size=3, rule="percentile", sides=(4,), limit=1.5, notes=["a"],
        part=Part(name="p"), parts=(Part(name="q", rate=1),), anything={"x": []},
    )  # fmt: skip


def test_an_optional_field_may_be_null():
    assert build('{"size": 3, "limit": null, "part": null}') == Whole(size=3)


def test_a_float_may_be_a_whole_number():
    assert build('{"size": 3, "limit": 2}').limit == 2


def test_a_whole_number_has_no_largest_one_but_for_floats():
    assert build_record(Whole, {"size": 10**5000}).size == 10**5000
    refuse({"size": 3, "limit": 10**400}, "limit cannot be")
    refuse({"size": 3, "limit": 10**5000}, "limit cannot be")


@pytest.mark.parametrize("values", [None, 3, "text", [], [["size", 3]]])
def test_what_is_no_object_is_refused(values):
    refuse(values, "not an object")


def test_a_field_that_is_missing_is_named():
    refuse({"limit": 1.0}, "size is missing")
    refuse({"size": 3, "part": {}}, "name is missing")


def test_a_field_that_does_not_exist_is_named():
    refuse({"size": 3, "sizes": 4}, "unknown field 'sizes'")
    refuse({"size": 3, "part": {"name": "p", "size": 3}}, "unknown field 'size'")
    refuse({"size": 3, "x" * 10_000: 4}, "unknown field 'xxx")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", "3"),
        ("size", 3.0),
        ("size", None),
        ("size", True),
        ("size", [3]),
        ("rule", "max"),
        ("rule", None),
        ("rule", 1),
        ("rule", ["mean"]),
        ("sides", 4),
        ("sides", "12"),
        ("sides", [1, None]),
        ("sides", [1, True]),
        ("sides", {"0": 1}),
        ("limit", "1.5"),
        ("limit", False),
        ("part", "p"),
        ("part", [{"name": "p"}]),
        ("parts", {"name": "p"}),
        ("parts", ["p"]),
        ("notes", "a"),
        ("counts", {"a": "1"}),
        ("counts", {"a": True}),
        ("counts", []),
        ("even", 3),
        ("even", "2"),
        ("shares", []),
        ("shares", ["a"]),
    ],
)
def test_a_value_of_another_type_is_refused_with_its_field(name, value):
    refuse({"size": 3, name: value}, f"{name} cannot be")


@pytest.mark.parametrize(
    "value", ["9" * 100_000, 10**5000, ["[]"] * 10_000], ids=["text", "number", "list"]
)
def test_a_long_value_is_cut_in_the_message(value):
    refuse({"size": 3, "limit": value}, "limit cannot be")


def nested(depth):
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def test_nesting_without_end_is_refused():
    for name in ("size", "part", "sides", "rule"):
        refuse({"size": 3, name: nested(100_000)}, f"{name} cannot be")


def test_a_value_is_shown_in_a_bearable_length():
    assert show_value("a") == "'a'"
    assert len(show_value("a" * 1000)) == MAX_SHOWN + len("...")
    assert show_value(10**5000) == "a value of type int"
    assert show_value(nested(100_000)) == "a value of type list"


def test_a_bool_is_no_number_and_a_number_no_bool():
    assert not fits(True, int)
    assert not fits(True, float)
    assert not fits(True, Literal[1])
    assert fits(True, bool)
    assert not fits(1, bool)
    assert fits(1, Literal[1, 2])


def test_the_message_says_what_would_be_right():
    refuse({"size": "3"}, "size cannot be '3'; it must be a whole number$")
    refuse({"size": 3, "even": 3}, "even cannot be 3; it must be an even number$")
    refuse({"size": 3, "rule": 1}, "it must be 'mean' or 'percentile'$")
    refuse({"size": 3, "limit": "a"}, "it must be a number or None$")
    refuse({"size": 3, "part": 1}, "it must be an object or None$")
    refuse({"size": 3, "shares": []}, "it must be at least one number or None$")


def test_lists_under_a_rule_become_tuples():
    assert build('{"size": 3, "shares": [1, 0.5]}').shares == (1, 0.5)


def test_numbers_of_a_dict_may_be_infinite_or_none():
    counts = build('{"size": 3, "counts": {"a": Infinity, "b": NaN}}').counts
    assert str(counts) == "{'a': inf, 'b': nan}"


def test_a_record_made_by_hand_is_checked_alike():
    check_fields(Whole(size=3))
    with pytest.raises(InputError, match="even cannot be 1; it must be an even number"):
        check_fields(Whole(size=3, even=1))
    with pytest.raises(InputError, match=r"sides cannot be \[1, 2\]; it must be a list"):
        check_fields(Whole(size=3, sides=[1, 2]))  # type: ignore[arg-type]


def test_limits_of_numbers():
    assert [within(0, 1).holds(n) for n in (-0.1, 0, 1, 1.1, float("nan"))] == [
        False, True, True, False, False,
    ]  # fmt: skip
    assert [above(0, 1).holds(n) for n in (0, 0.1, 1, 1.1, float("inf"))] == [
        False, True, True, False, False,
    ]  # fmt: skip
    assert within(1, 9, "a whole number").words == "a whole number from 1 to 9"


@dataclass(frozen=True, kw_only=True)
class Settings:
    way: Literal["none", "own"] | tuple[float, ...] = "none"
    channels: Literal[3, 1] = 3
    limit: float | None = None


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("way", "none", "none"),
        ("way", "0.5,0.25", (0.5, 0.25)),
        ("channels", "1", 1),
        ("limit", "none", None),
        ("limit", "1e-3", 0.001),
        ("limit", "much", "much"),
    ],
)
def test_a_text_is_read_as_what_its_field_may_be(name, text, value):
    read = read_field(Settings, name, text)
    assert (read, type(read)) == (value, type(value))
