import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest

from src.system.errors import InputError
from src.system.records import (
    MAX_SHOWN,
    Rule,
    build_record,
    check_fields,
    fits,
    show_value,
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


@dataclass(frozen=True, kw_only=True)
class Ruled:
    side: Annotated[int, Rule(lambda n: n % 32 == 0, "a multiple of 32")] = 32
    sides: Annotated[tuple[int, ...], Rule(lambda t: len(t) > 0, "one side or more")] = (32,)
    share: Annotated[float, Rule(lambda x: 0 < x < 1, "a number between 0 and 1")] | None = None

    def __post_init__(self):
        check_fields(self)


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("side", 33, "a multiple of 32"),
        ("side", True, "a multiple of 32"),
        ("sides", (), "one side or more"),
        ("share", 1.0, "a number between 0 and 1 or None"),
        ("share", float("nan"), "a number between 0 and 1 or None"),
    ],
)
def test_a_field_follows_its_rule_from_a_file_or_from_code(name, value, right):
    from_file = list(value) if isinstance(value, tuple) else value
    for make in (lambda: Ruled(**{name: value}), lambda: build_record(Ruled, {name: from_file})):
        with pytest.raises(InputError) as caught:
            make()
        assert str(caught.value).startswith(f"{name} cannot be ")
        assert str(caught.value).endswith(f"it must be {right}")


def test_a_value_that_follows_its_rule_is_taken():
    record = build_record(Ruled, {"side": 64, "sides": [1, 2], "share": 0.5})
    assert record == Ruled(side=64, sides=(1, 2), share=0.5)
