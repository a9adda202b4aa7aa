"""Decoded images in one file that all worker processes and all runs map into their memory.

Decoding JPEG is most of the work for a sample; with the cache it is done once. The file holds the
plain 8-bit images of a folder, of any size: a page with a magic word and the place of the index,
the images' rows, each image on a page of its own, and the index as JSON. It is named after the
fingerprint of the image files. Images of other kinds are read from their own files.
"""

from __future__ import annotations

import json
import mmap
import os
import shutil
import struct
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from src.datasets.data_folder import ImageFolder
from src.datasets.fingerprint import FileState, image_states, images_fingerprint
from src.radiographs.image_files import read_any_image, read_any_size
from src.radiographs.pixels import Pixels
from src.structures import Grey
from src.system.errors import InputError
from src.system.files import OutputError, look_at_file, remove_leftovers, replaced_file
from src.system.folder_lock import locked_dir
from src.system.processes import map_files

MAGIC = b"pixels 2"  # the first took 8 bits with a window for plain ones
HEAD = struct.Struct("<8sQ")  # the magic word and the byte at which the index begins
PAGE = 4096  # bytes; images begin at multiples of it
MAX_INDEX = 2**28  # bytes; the challenge's has a hundredth of that


class CachedImage(NamedTuple):
    """Where an image lies in the cache, and the file that it came from.

    Attributes:
        offset: its first byte; 0 if the cache lacks it because it is not plain 8-bit.
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
    """Reads images from the cache, and those that it lacks from their files."""

    def __init__(self, path: Path, images: Mapping[str, CachedImage], files: ImageFolder) -> None:
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

    def image_path(self, patient_id: str) -> Path:
        """Return the image's own file."""
        return self.files.image_path(patient_id)

    def read_sizes(self, patient_ids: Sequence[str]) -> list[tuple[int, int]]:
        """Return the height and width of each image, pixels."""
        images = [self.images[patient] for patient in patient_ids]
        return [(image.height, image.width) for image in images]

    @property
    def n_left_out(self) -> int:
        """Return how many images are read from their own files."""
        return sum(not image.offset for image in self.images.values())

    def _open(self) -> None:
        with self.path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._bytes = np.frombuffer(mapped, dtype=np.uint8)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the map out of the copy that a worker process gets; it makes its own."""
        return {name: value for name, value in vars(self).items() if name != "_bytes"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()


def open_or_build_cache(
    patient_ids: Sequence[str], files: ImageFolder, cache_dir: Path, *, n_workers: int
) -> PixelCache:
    """Open the cache of some images; build it first if it is missing or not current.

    Args:
        cache_dir: where caches lie; one for each set of images.
        n_workers: processes that decode.

    Raises:
        InputError: an image gives no radiograph, or there is no room for the cache.
    """
    states = image_states(patient_ids, files)
    path = _cache_path(cache_dir, states)
    cache = open_cache(path, states, files)
    if cache is not None:
        return cache
    with locked_dir(cache_dir, "is building a cache there; waiting for it", wait=_tell):
        cache = open_cache(path, states, files)  # another process may have built it meanwhile
        if cache is None:
            remove_leftovers(cache_dir, "pixels_*", f".tmp{path.suffix}", idle=0)
            _build(path, states, files, n_workers)
            states = image_states(patient_ids, files)
            cache = open_cache(path, states, files)
    if cache is None:
        raise InputError(f"{files.images_dir}: images changed while they were read; try again")
    if cache.n_left_out:
        _tell(f"{cache.n_left_out} of {len(states)} images are not plain 8-bit: they are read "
              f"from their own files")  # fmt: skip
    return cache


def open_cache(
    path: Path, states: Mapping[str, FileState], files: ImageFolder
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
        ValueError: this is not a complete cache.
    """
    look_at_file(path, InputError)
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
    """Say whether an image lies between the head and `end`, or is not in the cache."""
    if any(type(number) is not int for number in image[:3]) or min(image.height, image.width) < 1:
        return False
    return not image.offset or PAGE <= image.offset < image.end <= end


def _cache_path(cache_dir: Path, states: Mapping[str, FileState]) -> Path:
    """Name the file that caches these images."""
    return cache_dir / f"pixels_{images_fingerprint(states)[:16]}.bin"


def _build(path: Path, states: Mapping[str, FileState], files: ImageFolder, n_workers: int) -> None:
    """Decode all images into the file: first their sizes, then the pixels, then the index."""
    paths = [files.image_path(patient) for patient in states]
    sizes = map_files(read_any_size, paths, n_workers=n_workers)
    planned, end = _plan(states, list(tqdm(sizes, "sizes", len(paths), unit="image")))
    _check_room(path, len(planned), end)
    with replaced_file(path) as temporary:
        write = partial(_write_pixels, temporary)
        written = map_files(write, paths, list(planned.values()), n_workers=n_workers)
        bar = tqdm(written, "cache", len(paths), unit="image")
        images = {
            patient: image if is_there else image._replace(offset=0)
            for (patient, image), is_there in zip(planned.items(), bar, strict=True)
        }
        write_index(temporary, end, images)


def _plan(
    states: Mapping[str, FileState], sizes: Sequence[tuple[int, int]]
) -> tuple[dict[str, CachedImage], int]:
    """Give every image a place that begins on a page; return the places and the end of the last."""
    planned, offset = {}, PAGE
    for (patient, state), (height, width) in zip(states.items(), sizes, strict=True):
        planned[patient] = CachedImage(offset, height, width, state)
        offset += -(-height * width // PAGE) * PAGE
    return planned, offset


def _check_room(path: Path, n_images: int, n_bytes: int) -> None:
    """Print the size of the cache; refuse one that does not fit on the disk."""
    free = shutil.disk_usage(path.parent).free
    about = f"cache of {n_images:,} images: {n_bytes / 1e9:.2f} GB in {path}"
    if n_bytes > free:
        raise OutputError(f"{about}, where {free / 1e9:.2f} GB are free; without --cache every "
                          f"image is decoded from its file each time")  # fmt: skip
    _tell(f"{about}, {free / 1e9:.0f} GB free")


def _write_pixels(cache: Path, path: Path, image: CachedImage) -> bool:
    """Decode an image into its place; False if it is not plain 8-bit, or not of its header's size.

    What is not written remains a hole in the file, which takes no disk space.
    """
    pixels = read_any_image(path)
    if pixels.dtype != np.uint8 or pixels.shape != (image.height, image.width):
        return False
    content = np.ascontiguousarray(pixels).data
    with cache.open("r+b", buffering=0) as file:
        n_written = os.pwrite(file.fileno(), content, image.offset)
    if n_written != pixels.size:
        raise OutputError(f"{cache.parent}: the disk is full")
    return True


def write_index(path: Path, offset: int, images: Mapping[str, CachedImage]) -> None:
    """Write the index behind the images, and its place into the head."""
    rows = {
        patient: [image.offset, image.height, image.width, *image.state]
        for patient, image in images.items()
    }
    with path.open("r+b") as file:
        file.write(HEAD.pack(MAGIC, offset))
        file.seek(offset)
        file.write(json.dumps(rows).encode())


def _tell(message: str) -> None:
    """Print a message without breaking the progress bar."""
    tqdm.write(message, file=sys.stderr)
