from typing import Any

import pytest

from src.system.records import MAX_SHOWN, cut_text, show_value


def shared_lists(depth):
    """Nest a list in itself twice, again and again: written out it has 2 ** depth parts."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value, value]
    return value


def shared_dicts(depth):
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value, "b": (value, value)}
    return value


@pytest.mark.parametrize("value", [shared_lists(200), shared_dicts(200)], ids=["lists", "dicts"])
def test_values_that_share_their_parts_are_shown_at_once(value):
    assert len(show_value(value)) <= MAX_SHOWN + len("...")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (["a"], "['a']"),
        ({"a": [1, 2.5]}, "{'a': [1, 2.5]}"),
        ((None, True), "(None, True)"),
        (10**50, str(10**50)),
        ("a\nb", r"'a\nb'"),
        ("\udcff", r"'\udcff'"),
    ],
)
def test_a_short_value_is_shown_as_it_is(value, text):
    assert show_value(value) == text


@pytest.mark.parametrize(
    "value", ["x" * 10**6, b"x" * 10**6, [0] * 10**6, 10**4000, {"x" * 999: 1}]
)
def test_a_long_value_is_shown_by_its_beginning(value):
    assert len(show_value(value)) <= MAX_SHOWN + len("...")


def test_a_long_text_is_cut():
    assert cut_text("x" * MAX_SHOWN) == "x" * MAX_SHOWN
    assert cut_text("x" * (MAX_SHOWN + 1)) == "x" * MAX_SHOWN + "..."
    assert cut_text("xyz", 2) == "xy..."
