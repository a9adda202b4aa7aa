"""Every way in which the project writes a file: `WRITERS[name](folder, content)`.

As a command it runs all of them where nothing can be written, and prints what came of it as JSON:

    python -m tests.writers FOLDER

FOLDER is on a file system of its own, which this fills up and then mounts read-only.
"""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from src.datasets.data_check import Finding, write_findings
from src.datasets.folds import write_folds
from src.experiments.history import write_history
from src.prediction.outputs import write_boxes, write_submission
from src.prediction.postprocess import choose_boxes
from src.prediction.presets import Postprocess
from src.prediction.provenance import Provenance
from src.system.errors import InputError
from src.system.files import make_dir, new_folder, write_json, write_text
from src.visualizations.figures import save_figure
from src.visualizations.overlays import save_picture
from tests.made_checkpoints import make_checkpoint
from tests.made_predictions import make_sweep, random_predictions

N_ROWS = 3000  # makes every file larger than `LEFT_OVER`
LEFT_OVER = 8192  # bytes


def write_sweep(folder, content):
    make_sweep(np.full((N_ROWS, 1), float(content))).save(folder / "scores.npz")


def write_figure(folder, content):
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().imshow(np.random.default_rng(content).random((200, 200)))
    save_figure(figure, folder / "plot.png")


def write_checkpoint(folder, content):
    weights = {"weight": torch.full((100, 100), float(content))}
    make_checkpoint(weights).save(folder / "000.safetensors")


def write_predictions(folder, content):
    random_predictions(n_images=300, epoch=content).save(folder / "000.npz")


def write_table_of_boxes(folder, content):
    predictions, chosen = boxes_of_other_networks(content)
    files = predictions.ids.tolist()
    write_boxes(folder / "boxes.csv", predictions, chosen, folder / "000.npz", files=files)


def write_table_of_strings(folder, content):
    predictions, chosen = boxes_of_other_networks(content)
    write_submission(folder / "out.csv", predictions, chosen, folder / "000.npz")


def boxes_of_other_networks(content):
    predictions = random_predictions(n_images=300)
    made_by = Provenance(img_size=192 + content, epoch=content)
    predictions = replace(predictions, provenance=made_by)
    return predictions, choose_boxes(predictions, Postprocess(threshold=0.1, nms=0.5))


def write_picture(folder, content):
    pixels = np.random.default_rng(content).integers(0, 256, (99, 99, 3), np.uint8)
    save_picture(folder / "overlay.png", pixels)


def write_folder(folder, content):
    with new_folder(folder / "data") as new:
        make_dir(new / "images")
        (new / "images" / "a").write_bytes(bytes([content]) * 4 * LEFT_OVER)


def write_table_of_folds(folder, content):
    patients = [f"patient-{i}" for i in range(N_ROWS)]
    write_folds(folder / "folds.csv", dict.fromkeys(patients, 1), dict.fromkeys(patients, content))


WRITERS = {
    "boxes": write_table_of_boxes,
    "checkpoint": write_checkpoint,
    "data check": lambda folder, content: write_findings(
        folder / "check_data.csv",
        [Finding("leak", f"p{i}", "", f"{content}") for i in range(N_ROWS)],
    ),
    "figure": write_figure,
    "folder": write_folder,
    "folds": write_table_of_folds,
    "history": lambda folder, content: write_history(
        folder / "history.csv", [{"epoch": i, "loss": content} for i in range(N_ROWS)]
    ),
    "json": lambda folder, content: write_json(folder / "a.json", {"a": [content] * N_ROWS}),
    "picture": write_picture,
    "predictions": write_predictions,
    "submission": write_table_of_strings,
    "sweep": write_sweep,
    "text": lambda folder, content: write_text(folder / "page.html", f"{content} " * 9999),
}
REPLACING = [name for name in WRITERS if name != "folder"]  # the others make something new


def content_of(folder):
    """Return every file below a folder, hidden ones too, with its bytes."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def write_where_it_fails(name, folder):
    """Return the message of the error, and whether everything is as it was."""
    before = content_of(folder)
    try:
        WRITERS[name](folder, 1)
    except InputError as error:
        message = str(error)
    else:
        message = ""
    return message, content_of(folder) == before and not list(folder.glob(".*"))


def fill(path, left_over):
    """Take all of a file system's space but for `left_over` bytes."""
    try:
        with path.open("wb") as file:
            while True:
                file.write(bytes(4096))
                file.flush()
    except OSError:
        pass
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size - left_over)


def main(folder):
    for name in REPLACING:
        WRITERS[name](make_dir(folder / name), 0)
    make_dir(folder / "folder")
    outcomes = {}
    for left_over in (0, LEFT_OVER):
        fill(folder / "filler", left_over)
        found = {name: write_where_it_fails(name, folder / name) for name in WRITERS}
        outcomes[f"{left_over} bytes left"] = found
        (folder / "filler").unlink()
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    outcomes["read-only"] = {name: write_where_it_fails(name, folder / name) for name in WRITERS}
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
