"""What can be told of many images without training on them, read in several processes.

Without decoding, an image's header is read, that of its compressed pixels is held against it, and
the stored pixels are hashed: so a file is read whole, 3.5 GB for the challenge's 26,684.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from src.radiographs.dicom import DicomError, ImageFacts, read_facts, read_image
from src.radiographs.remarks import KINDS, heard_remarks
from src.system.processes import MAX_WORKERS, map_files


class ExaminedImage(NamedTuple):
    """A file; the facts of its image, or why there are none; what is odd about its grey values."""

    path: Path
    facts: ImageFacts | None
    cause: str
    odd: tuple[str, ...] = ()


def examine_images(
    paths: Sequence[Path], *, full: bool = False, n_workers: int | None = None
) -> Iterator[ExaminedImage]:
    """Read every image, and show how far it is.

    Args:
        full: decode the pixels too, and look at their grey values.
        n_workers: processes that read; 0 or 1: this one; None: one for each core, 8 at most.
    """
    if n_workers is None:
        n_workers = min(os.cpu_count() or 1, MAX_WORKERS)
    images = map_files(partial(_examine, full=full), paths, n_workers=n_workers)
    yield from tqdm(images, "check", len(paths), unit="file")


def _examine(path: Path, *, full: bool) -> ExaminedImage:
    with heard_remarks() as heard:
        try:
            facts = read_facts(path)
            if full:
                read_image(path)
        except DicomError as error:
            return ExaminedImage(path, None, str(error).removeprefix(f"{path}: "))
    return ExaminedImage(path, facts, "", tuple(KINDS[kind] for _, kind in heard))
