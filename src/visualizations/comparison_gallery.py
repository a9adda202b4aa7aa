"""Images as two detectors see them, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.datasets.data_folder import DataFolder, ImageFolder, open_image_folder
from src.metric import Boxes, FloatArray
from src.radiographs.pixels import Pixels
from src.scoring.comparison import ComparedRun
from src.scoring.image_differences import ImageDifference
from src.system.errors import InputError
from src.system.records import cut_text
from src.visualizations.overlays import contact_sheet, draw_overlay, save_picture
from src.visualizations.picture_names import picture_names

OVERVIEW = "overview.png"
OLD_PICTURES = (OVERVIEW, "[0-9][0-9][0-9]*_*.png")  # as `save_gallery` names them
GAP = 8  # pixels between the two


def find_images(data_dir: Path, patient_ids: Sequence[str]) -> dict[str, ImageFolder]:
    """Look for images among the training and the test images of a data folder.

    Raises:
        InputError: one of them is not there.
    """
    folder = DataFolder(data_dir)
    folder.check()
    found: dict[str, ImageFolder] = {}
    for split in ("train", "test"):
        if folder.has_images(split):
            images = open_image_folder(folder.images_dir(split), patient_ids, needs_all=False)
            found = dict.fromkeys(images.names, images) | found
    for patient in patient_ids:
        if patient not in found:
            raise InputError(f"{data_dir}: holds no image {cut_text(patient)}")
    return found


def remove_galleries(folder: Path) -> None:
    """Remove the pictures of earlier galleries, those of every pair; other files stay.

    Args:
        folder: of all pairs; each has a folder named after its letters, such as A_B.
    """
    for name in OLD_PICTURES:
        for path in folder.glob(f"[A-Z]_[A-Z]/{name}"):
            path.unlink()


def save_gallery(
    folder: Path,
    images: dict[str, ImageFolder],
    runs: tuple[ComparedRun, ComparedRun],
    names: tuple[str, str],
    rows: Sequence[ImageDifference],
) -> list[Path]:
    """Save a picture for each image, and all on one sheet.

    Args:
        images: where each image lies, by its patientId.
        names: short ones of the runs, which are written below the pictures.
        rows: the images that are shown, at least one.

    Returns:
        The paths of the pictures, the sheet first.
    """
    ids = [runs[0].data.ids[row.image] for row in rows]
    files = [f"{place:03}_{name.replace('/', '_')}" for place, name in enumerate(ids, start=1)]
    paths = [folder / name for name in picture_names(files, taken=[OVERVIEW])]
    pictures = []
    for name, path, row in zip(ids, paths, rows, strict=True):
        pictures.append(draw_pair(images[name].read(name), runs, names, row))
        save_picture(path, pictures[-1])
    save_picture(folder / OVERVIEW, contact_sheet(pictures))
    return [folder / OVERVIEW, *paths]


def draw_pair(
    picture: Pixels,
    runs: tuple[ComparedRun, ComparedRun],
    names: tuple[str, str],
    row: ImageDifference,
) -> NDArray[np.uint8]:
    """Draw an image with its true boxes and those of two runs, the first run's on the left.

    Args:
        picture: (H, W) in [0, 1], or uint8: the image's file.

    Returns:
        (H', W', 3) uint8, RGB.
    """
    image = row.image
    halves: list[NDArray[Any]] = []
    for run, name, score in zip(runs, names, (row.score_a, row.score_b), strict=True):
        rows = slice(*run.chosen.offsets[image : image + 2].tolist())
        counted = "does not count" if np.isnan(score) else f"score {score:.3f}"
        halves.append(
            draw_overlay(
                picture,
                true_boxes_xyxy=_corners(run.true, image),
                boxes_xyxy=_corners(run.chosen, image),
                scores=run.confidences[rows].astype(np.float32),
                caption=f"{name}: {counted}",
            )
        )
    gap = np.zeros((halves[0].shape[0], GAP, 3), dtype=np.uint8)
    return np.hstack([halves[0], gap, halves[1]])


def _corners(boxes: Boxes, image: int) -> FloatArray:
    xywh = boxes.xywh[slice(*boxes.offsets[image : image + 2].tolist())]
    return np.hstack([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]])
