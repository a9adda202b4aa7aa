"""What is written of boxes passes our own checker, and is read back exactly."""

import csv
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from src.challenge.submission_check import check_submission
from src.challenge.submission_file import SubmissionError
from src.datasets.transforms import central_crop, warp_boxes
from src.prediction.outputs import prediction_strings, write_boxes, write_submission
from src.prediction.postprocess import choose_boxes
from src.prediction.presets import Postprocess
from src.prediction.provenance import Provenance
from src.system.files import write_csv
from tests.made_predictions import ALL, make_predictions, random_predictions, three_boxes


def write(path, predictions, **options):
    write_submission(path, predictions, choose_boxes(predictions, ALL), path.with_name("p.npz"),
                     **options)  # fmt: skip


def cropped(side, file_side, *boxes):
    """Boxes in pixels of an input of 192 that shows the central square of a file."""
    made = make_predictions(([], [(box, 0.9 - i / 10) for i, box in enumerate(boxes)]))
    made.image_sizes[:] = file_side
    return replace(made, provenance=Provenance(img_size=192, source_crop=side))


def test_what_an_input_shows_beside_its_file_is_cut_off(tmp_path):
    # 192 pixels of the input are 768 of a file of 512: its edges lie at 32 and 160.
    predictions = cropped(768, 512, [0, 0, 96, 96], [96, 96, 192, 192], [0, 0, 20, 20])
    strings = prediction_strings(predictions, choose_boxes(predictions, ALL))
    assert strings == {"image-0": "0.9000 0.0 0.0 256.0 256.0 0.8000 256.0 256.0 256.0 256.0"}
    write(tmp_path / "s.csv", predictions)
    assert check_submission(tmp_path / "s.csv", size_of=lambda _: (512, 512)).faults == []


def test_a_box_without_area_at_the_precision_of_files_is_left_out(tmp_path):
    predictions = cropped(192, 1024, [10, 10, 10.04, 90], [20, 20, 20.06, 90], [5, 5, 5, 5])
    write(tmp_path / "s.csv", predictions)
    assert check_submission(tmp_path / "s.csv").faults == []
    assert (tmp_path / "s.csv").read_text().endswith("image-0,0.8000 436.0 436.0 0.1 70.0\n")
    boxes = tmp_path / "boxes.csv"
    chosen = choose_boxes(predictions, ALL)
    write_boxes(boxes, predictions, chosen, tmp_path / "p.npz", files=["a"])
    assert len(pd.read_csv(boxes)) == 1


@pytest.mark.parametrize("patient", ["a,b", 'a"b', "a\nb", "a\r", " a", "../b", "", "first"])
def test_a_submission_that_the_checker_rejects_is_not_written(tmp_path, patient):
    predictions = replace(three_boxes(), ids=np.array(["first", patient]))
    with pytest.raises(SubmissionError, match=r"p\.npz: makes no submission: ") as caught:
        write(tmp_path / "s.csv", predictions)
    assert str(caught.value).isprintable()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seed", range(5))
def test_a_submission_of_any_boxes_passes_the_checker(tmp_path, seed):
    predictions = random_predictions(seed, n_images=30)
    rng = np.random.default_rng(seed)
    predictions.image_sizes[:] = rng.integers(1, 3000, (30, 1))
    for source_crop in (None, 100, 2900):
        made_by = replace(predictions.provenance, source_crop=source_crop)
        write(tmp_path / "s.csv", replace(predictions, provenance=made_by))
        parsed = check_submission(tmp_path / "s.csv")
        sizes = predictions.image_sizes[:, 0]
        assert parsed.faults == [fault for fault in parsed.faults if "outside" in fault.problem]
        for (patient, boxes), size in zip(parsed.boxes.items(), sizes, strict=True):
            for box in boxes:
                assert box.x >= 0 and box.x + box.width <= size + 0.1, patient
                assert box.y >= 0 and box.y + box.height <= size + 0.1


@pytest.mark.parametrize("img_size", [192, 512])
@pytest.mark.parametrize("shown", [{}, {"fit": "pad"}, {"source_crop": 777}], ids=str)
def test_boxes_go_into_the_input_and_back_to_half_a_pixel_of_their_file(shown, img_size):
    rng = np.random.default_rng(5)
    for height, width in [
        (3001, 2047),
        (1, 4096),
        (640, 641),
        (1024, 1024),
        *rng.integers(50, 3000, (20, 2)),
    ]:
        corner = rng.uniform(0, 0.8, (8, 2)) * (width, height)
        size = rng.uniform(0.01, 0.2, (8, 2)) * (width, height)
        made_by = Provenance(img_size=img_size, **shown)
        crop = central_crop((height, width), img_size, made_by.shown)
        in_input = warp_boxes(np.hstack([corner, size]), crop).astype(np.float32)
        predictions = replace(
            make_predictions(([], [])),
            image_sizes=np.array([[height, width]]),
            provenance=made_by,
        )
        found = predictions.in_file_pixels(0, in_input)
        np.testing.assert_allclose(found, np.hstack([corner, corner + size]), rtol=0, atol=0.01)


def test_a_box_in_the_black_beside_a_file_is_left_out():
    made = make_predictions(([], [([0, 0, 96, 40], 0.9), ([0, 40, 96, 100], 0.8)]))
    made.image_sizes[:] = 500, 1000
    padded = replace(made, provenance=Provenance(img_size=192, fit="pad"))
    strings = prediction_strings(padded, choose_boxes(padded, ALL))
    assert strings == {"image-0": "0.8000 0.0 0.0 500.0 270.8"}


CELLS = ["a", "", " a", "a,b", 'a"b', '"', "a\nb", "a\rb", "a\r\nb", "\r", "\n", "a\x85b",
         "a\u2028b", "é", "NA", "1e5", "#", "\\", "'", "a\tb"]  # fmt: skip


def test_a_table_is_read_back_exactly_by_every_reader(tmp_path):
    path = tmp_path / "a.csv"
    rows = [(cell, str(i)) for i, cell in enumerate(CELLS)]
    write_csv(path, ("name", "number"), rows)
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    assert list(table.itertuples(index=False, name=None)) == rows
    with path.open(newline="", encoding="utf-8") as file:
        assert [tuple(row) for row in csv.reader(file)] == [("name", "number"), *rows]
    write_csv(path, ("name", "number"), [("a", 1), ("b", 2)])
    assert path.read_bytes() == b"name,number\na,1\nb,2\n"


def test_the_choice_of_boxes_is_not_changed_by_writing_them(tmp_path):
    predictions = random_predictions(3)
    before = choose_boxes(predictions, Postprocess(threshold=0.0))
    strings = prediction_strings(predictions, before)
    assert sum(len(text.split()) // 5 for text in strings.values()) == len(before.scores)
