"""Submissions of the challenge, and samples of them, written row by row."""

from src.prediction.outputs import prediction_strings
from src.prediction.postprocess import choose_boxes

HEADER = "patientId,PredictionString"


def write_rows(folder, *rows, header=HEADER):
    path = folder / "submission.csv"
    path.write_text("".join(f"{row}\n" for row in (header, *rows)))
    return path


def write_sample(folder):
    path = folder / "sample.csv"
    path.write_text(f"{HEADER}\na,0.5 0 0 100 100\nb,\nc,\n")
    return path


def strings_of(predictions, postprocess):
    """Write out the boxes of every image as a submission does."""
    return prediction_strings(predictions, choose_boxes(predictions, postprocess))
