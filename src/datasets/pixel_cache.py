"""Decoded images in one file that all worker processes and all runs map into their memory.

Decoding JPEG is most of the work for a sample; with the cache it is done once. The file holds the
plain 8-bit images of a folder, whatever their sizes: a page with a magic word and the place of the
index, the images' rows, each image on a page of its own, and the index, JSON. It is named after
the fingerprint of the image files. Images of other kinds are read from their own files.
"""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from src.datasets.data_folder import DicomFolder
from src.datasets.fingerprint import FileState, images_fingerprint
from src.radiographs.pixels import Pixels
from src.structures import Grey

MAGIC = b"pixels 2"  # the first took 8 bits with a window for plain ones
HEAD = struct.Struct("<8sQ")  # the magic word and the byte at which the index begins
PAGE = 4096  # bytes; images begin at multiples of it
MAX_INDEX = 2**28  # bytes; the challenge's has a hundredth of that


class CachedImage(NamedTuple):
    """Where an image lies in the cache, and the file that it came from.

    Attributes:
        offset: its first byte; 0 for one that is not there, as it is not plain 8-bit.
        height, width: pixels.
        state: of the image file when it was read.
    """

    offset: int
    height: int
    width: int
    state: FileState

    @property
    def end(self) -> int:
        return self.offset + self.height * self.width


class PixelCache:
    """Gives images out of the cache, and those that it lacks from their files."""

    def __init__(self, path: Path, images: Mapping[str, CachedImage], files: DicomFolder) -> None:
        self.path = path
        self.images = images
        self.files = files
        self._open()

    def read(self, patient_id: str, *, grey: Grey = "viewer") -> Pixels:
        """Return (H, W), an array of the caller's own.

        What is cached is plain 8-bit, the same under every rule for grey values.

        It is a copy for speed, too: the warp reads crosswise, for which its source should lie in
        the processor's cache, and copying brings it there row by row.
        """
        image = self.images[patient_id]
        if not image.offset:
            return self.files.read(patient_id, grey=grey)
        view = self._bytes[image.offset : image.end]
        return view.reshape(image.height, image.width).copy()

    @property
    def n_left_out(self) -> int:
        """Return how many images are read from their own files."""
        return sum(not image.offset for image in self.images.values())

    def _open(self) -> None:
        with self.path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._bytes = np.frombuffer(mapped, dtype=np.uint8)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the map out where a worker process is sent a copy: it makes its own."""
        return {name: value for name, value in vars(self).items() if name != "_bytes"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()


def cache_path(cache_dir: Path, states: Mapping[str, FileState]) -> Path:
    """Name the file that caches these images."""
    return cache_dir / f"pixels_{images_fingerprint(states)[:16]}.bin"


def write_index(path: Path, offset: int, images: Mapping[str, CachedImage]) -> None:
    """Put the index behind the images, and its place into the head."""
    rows = {
        patient: [image.offset, image.height, image.width, *image.state]
        for patient, image in images.items()
    }
    with path.open("r+b") as file:
        file.write(HEAD.pack(MAGIC, offset))
        file.seek(offset)
        file.write(json.dumps(rows).encode())


def open_cache(
    path: Path, states: Mapping[str, FileState], files: DicomFolder
) -> PixelCache | None:
    """Open a cache if it is whole and its image files are still those that it was built from.

    Args:
        states: of the image files as they are now.
    """
    try:
        images = _read_index(path)
    except (OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError,
            struct.error):  # fmt: skip
        return None
    if {patient: image.state for patient, image in images.items()} != dict(states):
        return None
    return PixelCache(path, images, files)


def _read_index(path: Path) -> dict[str, CachedImage]:
    """Read where the images lie.

    Raises:
        ValueError: this is no cache, or not a whole one.
    """
    with path.open("rb") as file:
        magic, offset = HEAD.unpack(file.read(HEAD.size))
        if magic != MAGIC:
            raise ValueError("not a cache of pixels")
        file.seek(offset)
        rows = json.loads(file.read(MAX_INDEX))
    images = {
        patient: CachedImage(start, height, width, FileState(*state))
        for patient, (start, height, width, *state) in rows.items()
    }
    if not all(_lies_before(image, offset) for image in images.values()):
        raise ValueError("an image lies outside")
    return images


def _lies_before(image: CachedImage, end: int) -> bool:
    """Say whether an image lies between the head and `end`, or is not there."""
    if any(type(number) is not int for number in image[:3]) or min(image.height, image.width) < 1:
        return False
    return not image.offset or PAGE <= image.offset < image.end <= end
