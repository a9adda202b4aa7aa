from pathlib import Path

import numpy as np
import pytest

from scripts.phantoms import NORMAL, draw_phantom
from src.radiographs.remarks import (
    KINDS,
    Remark,
    heard_remarks,
    remark,
    remark_on_pixels,
    summary,
)

PATH = Path("a.dcm")
RAMP = np.tile(np.arange(256, dtype=np.uint8), (256, 1))


def kinds_of(pixels):
    with heard_remarks() as heard:
        remark_on_pixels(PATH, pixels)
    return [kind for _, kind in heard]


@pytest.mark.parametrize(
    ("pixels", "kinds"),
    [
        (RAMP, []),
        (RAMP // 4, ["few levels"]),
        (RAMP // 4 + 100, ["few levels"]),
        (RAMP // 64 + 100, ["one grey"]),
        (np.where(RAMP > 99, 255, 0), ["two greys"]),
        (np.full((1, 1), 9), ["one grey"]),
    ],
)
@pytest.mark.parametrize("as_float", [False, True])
def test_pictures_with_little_in_them_are_remarked(pixels, kinds, as_float):
    pixels = pixels.astype(np.uint8)
    assert kinds_of(pixels / np.float32(255) if as_float else pixels) == kinds


def test_a_border_does_not_count():
    pixels = RAMP // 4
    pixels[:30], pixels[:, -20:] = 0, 255
    assert kinds_of(pixels) == ["few levels"]


@pytest.mark.parametrize("view", ["PA", "AP"])
def test_a_radiograph_is_not_remarked(view):
    assert kinds_of(draw_phantom(np.random.default_rng(0), NORMAL, view=view, sex="F").pixels) == []


def test_a_remark_is_heard_in_the_innermost_block_alone():
    remark(PATH, "window")
    with heard_remarks() as outer:
        with heard_remarks() as inner:
            remark(PATH, "window")
        assert (outer, inner) == ([], [Remark(PATH, "window")])


def test_summary_counts_each_file_once():
    found = [("b", "window"), ("a", "window"), ("a", "few levels"), ("a", "window")]
    remarks = [Remark(Path(name), kind) for name, kind in found]
    text = summary(remarks)
    assert text.startswith("odd grey values in 2 files, a among them")
    assert f"2 with {KINDS['window']}" in text
    assert f"1 with {KINDS['few levels']}" in text
    assert len(text.splitlines()) == 1
