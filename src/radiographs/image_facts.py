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

from src.radiographs.dicom import ImageFacts
from src.radiographs.image_files import read_any_facts, read_any_image
from src.radiographs.image_index import ImageFile
from src.radiographs.remarks import KINDS, heard_remarks
from src.system.errors import InputError
from src.system.processes import MAX_WORKERS, map_files


class ExaminedImage(NamedTuple):
    """A file; the facts of its image, or why there are none; what is odd about its grey values."""

    id: str
    path: Path
    facts: ImageFacts | None
    cause: str
    odd: tuple[str, ...] = ()


def examine_images(
    files: Sequence[ImageFile], *, full: bool = False, n_workers: int | None = None
) -> Iterator[ExaminedImage]:
    """Read every image, and show how far it is.

    Args:
        full: decode the pixels too, and look at their grey values.
        n_workers: processes that read; 0 or 1: this one; None: one for each core, 8 at most.
    """
    if n_workers is None:
        n_workers = min(os.cpu_count() or 1, MAX_WORKERS)
    read = partial(_examine, full=full)
    ids, paths = [file.id for file in files], [file.path for file in files]
    images = map_files(read, paths, ids, n_workers=n_workers)
    yield from tqdm(images, "check", len(paths), unit="file")


def _examine(path: Path, name: str, *, full: bool) -> ExaminedImage:
    with heard_remarks() as heard:
        try:
            facts = read_any_facts(path)
            if full:
                read_any_image(path)
        except InputError as error:
            return ExaminedImage(name, path, None, str(error).removeprefix(f"{path}: "))
    return ExaminedImage(name, path, facts, "", tuple(KINDS[kind] for _, kind in heard))
