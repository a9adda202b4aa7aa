"""The benchmark of encodings, without its network, and the figure of some."""

import numpy as np
import pytest

from scripts import draw_encodings
from scripts.benchmarks import encodings
from scripts.radiograph_encodings import ENCODINGS
from src.datasets.annotations import Record
from tests.dicom_files import write_challenge_dicom

PIXELS = np.tile(np.arange(1024) // 4, (1024, 1)).astype(np.uint8)
RECORDS = [
    Record("a", 2, np.array([[100.0, 100.0, 200.0, 200.0]])),
    Record("b", 1, np.zeros((0, 4))),
]


def test_every_image_is_written_in_every_encoding(tmp_path):
    for record in RECORDS:
        write_challenge_dicom(tmp_path / f"{record.patient_id}.dcm", PIXELS)
    levels = encodings._write_files(tmp_path / "files", RECORDS, tmp_path)
    assert list(levels) == list(ENCODINGS)
    assert min(levels.values()) > 180
    assert len(list((tmp_path / "files").rglob("[ab]"))) == 2 * len(ENCODINGS)


def test_each_encoding_is_scored_by_its_own_boxes(tmp_path):
    rows = ["file,x,y,width,height,score", "0/a,100,100,200,200,.9", "1/a,,,,,", "1/b,1,1,9,9,.8"]
    (tmp_path / "boxes.csv").write_text("\n".join(rows) + "\n")
    found = encodings._read_boxes(tmp_path / "boxes.csv")
    assert encodings._score(RECORDS, found, 0) == 1
    assert encodings._score(RECORDS, found, 1) == 0


@pytest.mark.parametrize("name", draw_encodings.SHOWN)
def test_what_is_drawn_is_known(name):
    assert name in ENCODINGS


def test_the_figure_is_drawn(tmp_path):
    draw_encodings.main(["--out", str(tmp_path / "grey.png")])
    assert (tmp_path / "grey.png").stat().st_size > 100_000
