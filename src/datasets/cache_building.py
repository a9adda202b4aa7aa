"""Build the cache of decoded images: several processes, crash-safe, one builder at a time."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from src.datasets.data_folder import DicomFolder
from src.datasets.fingerprint import FileState, image_states
from src.datasets.pixel_cache import (
    PAGE,
    CachedImage,
    PixelCache,
    cache_path,
    open_cache,
    write_index,
)
from src.radiographs.dicom import image_size, read_pixels
from src.system.errors import InputError
from src.system.files import LOCK_NAME, OutputError, make_dir, output_errors, replaced_file
from src.system.processes import map_files


def open_or_build_cache(
    patient_ids: Sequence[str], files: DicomFolder, cache_dir: Path, *, n_workers: int
) -> PixelCache:
    """Open the cache of some images, and build it before that if it is not there or not current.

    Args:
        cache_dir: where caches lie; one for each set of images.
        n_workers: processes that decode.

    Raises:
        InputError: an image gives no radiograph, or there is no room for the cache.
    """
    states = image_states(patient_ids, files.images_dir)
    path = cache_path(cache_dir, states)
    cache = open_cache(path, states, files)
    if cache is not None:
        return cache
    with _only_builder(make_dir(cache_dir)):
        cache = open_cache(path, states, files)  # another process may have built it meanwhile
        if cache is None:
            _remove_leftovers(path)
            _build(path, states, files, n_workers)
            states = image_states(patient_ids, files.images_dir)
            cache = open_cache(path, states, files)
    if cache is None:
        raise InputError(f"{files.images_dir}: images changed while they were read; try again")
    if cache.n_left_out:
        _tell(f"{cache.n_left_out} of {len(states)} images are not plain 8-bit: they are read "
              f"from their own files")  # fmt: skip
    return cache


def _build(path: Path, states: Mapping[str, FileState], files: DicomFolder, n_workers: int) -> None:
    """Decode all images into the file: first their sizes, then the pixels, then the index."""
    paths = [files.path(patient) for patient in states]
    sizes = map_files(image_size, paths, n_workers=n_workers)
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
    """Give every image a place that begins on a page; return the end of the last one, too."""
    planned, offset = {}, PAGE
    for (patient, state), (height, width) in zip(states.items(), sizes, strict=True):
        planned[patient] = CachedImage(offset, height, width, state)
        offset += -(-height * width // PAGE) * PAGE
    return planned, offset


def _check_room(path: Path, n_images: int, n_bytes: int) -> None:
    """Tell the size of the cache, and refuse one that does not fit on the disk."""
    free = shutil.disk_usage(path.parent).free
    about = f"cache of {n_images:,} images: {n_bytes / 1e9:.2f} GB in {path}"
    if n_bytes > free:
        raise OutputError(f"{about}, where {free / 1e9:.2f} GB are free; without --cache every "
                          f"image is decoded from its file each time")  # fmt: skip
    _tell(f"{about}, {free / 1e9:.0f} GB free")


def _write_pixels(cache: Path, path: Path, image: CachedImage) -> bool:
    """Decode an image into its place; False if it is not plain 8-bit, or not of its header's size.

    What is not written stays a hole in the file, which takes no room.
    """
    pixels = read_pixels(path)
    if pixels.dtype != np.uint8 or pixels.shape != (image.height, image.width):
        return False
    content = np.ascontiguousarray(pixels).data
    with cache.open("r+b", buffering=0) as file:
        n_written = os.pwrite(file.fileno(), content, image.offset)
    if n_written != pixels.size:
        raise OutputError(f"{cache.parent}: the disk is full")
    return True


@contextmanager
def _only_builder(folder: Path) -> Iterator[None]:
    """Wait until no other process builds in `folder`; the lock falls with the process.

    It is one of a file, open for writing: NFS tells other machines of no other kind.
    """
    with output_errors(folder):
        handle = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with output_errors(folder):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _tell(f"{folder}: another process builds a cache here; waiting for it")
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _remove_leftovers(path: Path) -> None:
    """Remove what killed builders left; whoever holds the lock is alone here."""
    for leftover in path.parent.glob(f".pixels_*.tmp{path.suffix}"):
        leftover.unlink()


def _tell(message: str) -> None:
    """Say something beside the progress bar."""
    tqdm.write(message, file=sys.stderr)
