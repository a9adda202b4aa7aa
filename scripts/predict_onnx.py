"""Predict boxes from a file of src/export.py with onnxruntime, numpy and OpenCV 5 alone.

`python predict_onnx.py model.onnx *.png > boxes.csv` prints file, x, y, width, height, score: boxes
in pixels of each image, as `generate_predictions --input` finds them; an image without boxes has a
row without numbers. Images are grey PNG or JPEG files of 8 bits, or PNG of 16, nowhere transparent.
This file imports nothing of its repository: copy it to where boxes are needed, and change it there.
"""

import argparse
import csv
import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import cv2
import numpy as np

FACTS = ("img_size", "source_crop", "fit", "grey", "reduction", "threshold")


def read_grey(path: Path, rule: str) -> Any:  # noqa: ANN401 - an array
    """Read an image as (H, W) float32 in [0, 1], bright where bone is."""
    content = np.frombuffer(read_file(path), np.uint8)
    stored: Any = cv2.imdecode(content, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)
    low, high = 0, np.iinfo(stored.dtype).max
    if stored.ndim == 3:  # equal planes are grey
        if np.ptp(stored, axis=2).max() > high * 4 / 255:
            raise ValueError("a colour picture")
        stored = stored[..., 1]
    if stored.dtype == np.uint16 and rule == "viewer":
        low, high = np.percentile(stored, (0.5, 99.5), method="inverted_cdf").astype(int)
    return np.clip((stored.astype(float) - low) / max(high - low, 1), 0, 1).astype(np.float32)


def make_input(image: Any, facts: dict[str, str]) -> tuple[Any, Any, Any]:  # noqa: ANN401
    """Shrink what is shown of an image to (S, S).

    Returns:
        The input; x and y of its corner in the image; width and height of its pixels there.
    """
    size, crop = int(facts["img_size"]), json.loads(facts["source_crop"])
    whole = np.array(image.shape[::-1])  # width, height
    shown = np.full(2, crop or max(whole)) if crop or facts["fit"] == "pad" else whole
    corner, step = (whole - shown) / 2, shown / size
    start, stride = corner, step
    takes_nth = image.shape == (1024, 1024) and shown[0] % size == 0
    takes_mean = {"subsample": False, "area": True, "auto": not takes_nth}[facts["reduction"]]
    if takes_mean and max(step) > 1:
        small = np.maximum(1, np.rint(whole * np.minimum(size / shown, 1))).astype(int)
        image = cv2.resize(image, small.tolist(), interpolation=cv2.INTER_AREA)
        stride = step * small / whole
        start = small / 2 - stride * size / 2 + (stride - 1) / 2
    matrix = np.column_stack([np.diag(stride), start])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix, (size, size), flags=flags), corner, step


def find_boxes(network: Any, image: Any, facts: dict[str, str]) -> list[list[str]]:  # noqa: ANN401
    """Return x, y, width, height and score of each box, pixels of the image."""
    pixels, corner, step = make_input(image, facts)
    boxes, scores, _ = network.run(None, {"images": pixels[None, None]})
    corners = (boxes.reshape(-1, 2, 2) * step + corner).clip(0, image.shape[::-1])
    xywh = np.hstack([corners[:, 0], corners[:, 1] - corners[:, 0]])
    counts = scores[0].astype(float) * 5 > float(facts["threshold"])
    return [
        [*(f"{number:.1f}" for number in box), f"{score:.4f}"]
        for box, score in zip(xywh[counts], scores[0, counts], strict=True)
        if min(box[2:].round(1)) > 0
    ]


def main() -> None:
    parser = Parser(description="Predict boxes from an ONNX file of src/export.py.")
    parser.add_argument("model", type=Path, help="the ONNX file")
    parser.add_argument("images", type=Path, nargs="+", help="grey PNG or JPEG files")
    parser.add_argument("--threshold", type=float, help="on score x 5 (default: the model's own)")
    arguments = parser.parse_args()
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else the next line reports its use
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)  # fatal: what is wrong is told below
    try:
        network = onnxruntime.InferenceSession(read_file(arguments.model))
        metadata = network.get_modelmeta().custom_metadata_map
        facts = {name: metadata[name] for name in FACTS}
    except Exception:  # onnxruntime's own kinds
        parser.error(f"{arguments.model}: no such file, or none that src/export.py wrote")
    if arguments.threshold is not None:
        facts["threshold"] = arguments.threshold
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(["file", "x", "y", "width", "height", "score"])
    for path in arguments.images:
        try:
            image = read_grey(path, facts["grey"])
        except Exception:  # OpenCV's own kinds
            parser.error(f"{path}: no such file, or no grey PNG or JPEG picture")
        name = os.fsencode(path).decode(errors="backslashreplace")
        table.writerows([name, *box] for box in find_boxes(network, image, facts) or [[""] * 5])


def read_file(path: Path) -> bytes:
    if not path.is_file():  # a pipe may never end
        raise FileNotFoundError(path)
    return path.read_bytes()


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")


if __name__ == "__main__":
    main()
