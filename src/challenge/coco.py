"""COCO's JSON files: the images that one describes, read without trust."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from src.system.errors import InputError
from src.system.files import read_bytes
from src.system.records import show_value

MAX_BYTES = 2**30  # of a file; COCO's own training set of 118,287 images takes 450 MB
IMAGE_ENDINGS = (".dcm", ".dicom", ".png", ".jpg", ".jpeg")

CocoId = int | str  # of an image; the format says int, and many files say text


class CocoError(InputError):
    """A COCO file that is missing or wrong."""


class CocoImage(NamedTuple):
    """An image of a COCO file; width and height are pixels, None where it does not tell them."""

    patient_id: str
    width: int | None
    height: int | None


def patient_of_name(name: str) -> str:
    """Return the patientId of an image that a file names, with the ending of an image or without.

    Folders stay part of it.
    """
    text = name.strip().replace("\\", "/")
    ending = PurePosixPath(text).suffix
    return text.removesuffix(ending) if ending.lower() in IMAGE_ENDINGS else text


def read_coco(path: Path) -> Any:  # noqa: ANN401 - any JSON
    """Read a JSON file.

    Raises:
        CocoError: it is missing, too large, or no JSON.
    """
    content = read_bytes(path, MAX_BYTES, CocoError)
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise CocoError(f"{path}: not a readable JSON file: {str(error)[:200]}") from error


def objects_of(path: Path, content: object, name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield place and value of each object in a list of a COCO file.

    Raises:
        CocoError: there is no such list, or something else in it.
    """
    found = content.get(name) if isinstance(content, dict) else None
    if not isinstance(found, list):
        raise CocoError(f"{path}: has no list {name!r}, as a COCO file of annotations has")
    for place, value in enumerate(found):
        if not isinstance(value, dict):
            raise CocoError(f"{path}: {name}[{place}]: {show_value(value)} is not an object")
        yield place, value


def read_images(path: Path, content: object) -> dict[CocoId, CocoImage]:
    """Return the images of a COCO file by their id; those without file_name are named by the id.

    A file that is listed several times, under one id or more, is one image.

    Raises:
        CocoError: the list is missing or wrong, or two images have one id or one name.
    """
    images: dict[CocoId, CocoImage] = {}
    named: dict[str, tuple[str, CocoImage]] = {}
    for place, value in objects_of(path, content, "images"):
        where = f"{path}: images[{place}]"
        key = id_of(where, value.get("id"))
        name = value.get("file_name", str(key))
        if not isinstance(name, str) or not name.strip():
            raise CocoError(f"{where}: file_name {show_value(name)} is not a name")
        image = CocoImage(
            patient_of_name(name), *(_side(where, value, side) for side in ("width", "height"))
        )
        if images.setdefault(key, image) != image:
            raise CocoError(f"{where}: the id {show_value(key)} is another image's")
        if named.setdefault(image.patient_id, (name, image)) != (name, image):
            raise CocoError(f"{where}: another image is named {show_value(image.patient_id)}")
    return images


def id_of(where: str, value: object) -> CocoId:
    """Check an id.

    Raises:
        CocoError: it is neither a whole number nor text.
    """
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise CocoError(f"{where}: {show_value(value)} is not an id")
    return value


def finite_numbers(value: object, count: int) -> tuple[float, ...] | None:
    """Return `count` numbers of a JSON list, None where it holds anything else."""
    if not isinstance(value, list) or len(value) != count:
        return None
    if any(isinstance(one, bool) or not isinstance(one, int | float) for one in value):
        return None
    try:
        numbers = tuple(map(float, value))
    except OverflowError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def _side(where: str, value: Mapping[str, Any], name: str) -> int | None:
    side = value.get(name)
    if side is None:
        return None
    numbers = finite_numbers([side], 1)
    if numbers is None or numbers[0] < 1 or numbers[0] % 1:
        raise CocoError(f"{where}: {name} {show_value(side)} is not a number of pixels")
    return int(numbers[0])
