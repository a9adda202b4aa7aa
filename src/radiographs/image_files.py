"""Radiographs of any kind of file: DICOM, PNG or JPEG, told apart by their first bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from src.radiographs.codestreams import PNG_MAGIC
from src.radiographs.dicom import read_pixels
from src.radiographs.dicom_elements import MAX_BYTES
from src.radiographs.pictures import JPEG_MAGIC, PictureError, read_picture
from src.radiographs.pixels import Pixels
from src.structures import Grey
from src.system.errors import InputError
from src.system.files import read_bytes
from src.system.processes import map_files


class ImageFile(NamedTuple):
    """A file and the name that its boxes go by."""

    id: str
    path: Path


class UnreadableFile(NamedTuple):
    """A file that gives no radiograph, and why."""

    path: Path
    cause: str


def find_image_files(place: Path) -> list[ImageFile]:
    """List a file, or every file below a folder, sorted by name; hidden ones are left alone.

    Their ids are their paths below the folder, whatever lies beside them.

    Raises:
        InputError: there is nothing, or a folder that cannot be read.
    """
    if place.is_file():
        return [ImageFile(as_text(place.name), place)]
    if not place.is_dir():
        raise InputError(f"{place}: no such file or folder")
    paths = sorted(path for path in _walk(place) if path.is_file())
    if not paths:
        raise InputError(f"{place}: holds no files")
    return [ImageFile(as_text(path.relative_to(place).as_posix()), path) for path in paths]


def _walk(folder: Path) -> Iterator[Path]:
    """Yield what lies in a folder and in those below, but for hidden ones."""
    for path in list_folder(folder):
        if path.name.startswith("."):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)
        else:
            yield path


def find_challenge_images(folder: Path) -> list[ImageFile]:
    """List the .dcm files of one of the challenge's folders, sorted by name.

    Raises:
        InputError: there are none.
    """
    paths = sorted(path for path in list_folder(folder) if path.suffix.lower() == ".dcm")
    if not paths:
        raise InputError(f"{folder}: holds no .dcm files")
    return [ImageFile(as_text(path.stem), path) for path in paths]


def list_folder(folder: Path) -> list[Path]:
    """List what lies in a folder.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror}") from error


def as_text(name: str) -> str:
    """Write as escapes what is no text in the name of a file; it may hold any bytes."""
    return name.encode("utf-8", "backslashreplace").decode()


def read_any_image(path: Path, *, grey: Grey = "viewer") -> Pixels:
    """Read a radiograph from a DICOM, PNG or JPEG file.

    Args:
        grey: how stored values become grey, where they are not plain 8-bit.

    Returns:
        (H, W), as it is stored where that is plain 8-bit.

    Raises:
        PictureError, DicomError: the file gives no radiograph; the message names it and the cause.
    """
    magic = read_bytes(path, MAX_BYTES, PictureError, n_bytes=len(PNG_MAGIC))
    if magic.startswith((PNG_MAGIC, JPEG_MAGIC)):
        return read_picture(path, grey=grey)
    return read_pixels(path, grey=grey)


def split_unreadable(
    files: Sequence[ImageFile], n_workers: int
) -> tuple[list[ImageFile], list[UnreadableFile]]:
    """Read every file once and tell those apart that give no radiograph."""
    readable, unreadable = [], []
    causes = map_files(_cause_of_failure, [file.path for file in files], n_workers=n_workers)
    for file, cause in zip(files, tqdm(causes, "check", len(files), unit="file"), strict=True):
        if cause is None:
            readable.append(file)
        else:
            unreadable.append(UnreadableFile(file.path, cause))
    return readable, unreadable


def _cause_of_failure(path: Path) -> str | None:
    try:
        read_any_image(path)
    except InputError as error:
        return str(error)
    return None
