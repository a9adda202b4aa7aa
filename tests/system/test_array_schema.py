import numpy as np
import pytest

from src.system.array_files import ArraySchema, check_arrays

SCHEMAS = {
    "names": ArraySchema(dtype="str", shape=("N",), is_unique=True),
    "steps": ArraySchema(dtype="int64", shape=("N+1",), low=0),
    "shares": ArraySchema(dtype="float32", shape=("N", 2), low=0, high=1),
    "kind": ArraySchema(dtype="str", shape=(), choices=("a", "b")),
    "means": ArraySchema(dtype="float64", shape=("M",), low=0, may_be_nan=True),
}
SOUND = {
    "names": np.array(["x", "y", "ÿ"]),
    "steps": np.arange(4),
    "shares": np.full((3, 2), 0.5, np.float32),
    "kind": np.array("b"),
    "means": np.array([0.0, np.nan]),
}
SURROGATE, TOO_HIGH = 0xDC80, 0x110000


def text_of(*codes):
    """Make text out of any numbers, as NumPy reads it out of a file."""
    return np.array(codes, np.uint32).view(f"U{len(codes)}").reshape(1).repeat(3)


def test_arrays_as_they_are_declared_pass():
    check_arrays(SOUND, SCHEMAS)
    check_arrays(SOUND | {"names": np.array(["x", "y", "z"], "U90")}, SCHEMAS)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_a_letter_stands_for_any_length_that_agrees(n):
    sound = {"names": np.arange(n).astype(str), "steps": np.arange(n + 1)}
    sound |= {"shares": np.zeros((n, 2), np.float32)}
    check_arrays(SOUND | sound, SCHEMAS)
    for name, array in sound.items():
        with pytest.raises(ValueError, match=r"has shape \(.*, not \('"):
            check_arrays(SOUND | sound | {name: np.concatenate([array, SOUND[name]])}, SCHEMAS)


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("names", np.arange(3), "names is int64 with 1 dimensions, not str with 1"),
        ("names", np.array(["x", "y", "x"]), "names holds 'x' twice"),
        ("names", np.array([["x", "y", "z"]]), "names is <U1 with 2 dimensions, not str with 1"),
        ("names", text_of(SURROGATE), "names holds what is no text"),
        ("names", text_of(TOO_HIGH), "names holds what is no text"),
        ("names", text_of(65, SURROGATE).astype(">U2"), "names holds what is no text"),
        ("steps", np.arange(4, dtype=np.uint64), "steps is uint64"),
        ("steps", np.arange(4, dtype=np.int32), "steps is int32"),
        ("steps", np.arange(4.0), "steps is float64"),
        ("steps", np.array([0, -3, 1, 2]), "steps holds -3, which is not between 0 and inf"),
        ("shares", np.full((3, 2), np.nan, np.float32), "shares holds a number that is not finite"),
        ("shares", np.full((3, 2), np.inf, np.float32), "shares holds a number that is not finite"),
        ("shares", np.full((3, 2), 1.5, np.float32), "shares holds 1.5, which is not between 0"),
        ("shares", np.full((3, 3), 0.5, np.float32), "shares has shape"),
        ("kind", np.array("c"), "kind holds 'c', not one of a, b"),
        ("kind", np.array(["a"]), "kind is <U1 with 1 dimensions"),
        ("kind", np.array("c" * 10_000), "kind holds 'cccc"),
        ("means", np.array([np.inf]), "means holds a number that is not finite"),
        ("means", np.array([0, 1j]), "means is complex128"),
    ],
)
def test_an_array_of_another_kind_is_refused_by_name(name, array, words):
    with pytest.raises(ValueError, match=r"^" + name) as caught:
        check_arrays(SOUND | {name: array}, SCHEMAS)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 200
