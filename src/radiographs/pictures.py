"""One PNG or JPEG file to grey pixels.

Such files say little of themselves. 8 bits are taken as they are, bright where bone is. 16 bits may
hold 12 or fewer, so they are stretched between the same percentiles as DICOM files without a
window. Colours whose planes agree, of a palette too, are grey; other colours are refused. What is
transparent is no image: black, and left out of the percentiles. A JPEG picture is turned as its
EXIF data say, for every viewer does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import imagecodecs
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from src.radiographs.codestreams import PNG_MAGIC, jpeg_orientation, picture_size
from src.radiographs.dicom import ImageFacts, cause_of
from src.radiographs.dicom_elements import MAX_BYTES
from src.radiographs.grey_values import grey_between_percentiles
from src.radiographs.pixels import MAX_PIXELS, FloatImage, Pixels
from src.radiographs.remarks import remark_on_pixels
from src.radiographs.stored_values import MAX_PLANE_DIFFERENCE
from src.structures import Grey
from src.system.errors import InputError
from src.system.files import read_bytes

N_HEADER_BYTES = 2**16  # where the size stands, unless EXIF data are longer

Picture = NDArray[np.uint8] | NDArray[np.uint16]


class PictureError(InputError):
    """A PNG or JPEG file that gives no radiograph, or a file that cannot be read."""


def read_picture(path: Path, *, grey: Grey = "viewer") -> Pixels:
    """Read a radiograph from a PNG or JPEG file.

    Args:
        grey: how 16 bits become grey: "viewer" between percentiles, "range" as value / 65535.

    Returns:
        (H, W) uint8 as stored, or float32 in [0, 1].

    Raises:
        PictureError: it cannot be read, or is in colour; the message names the file and the cause.
    """
    picture, opacity = _without_colour(path, _decode(path))
    pixels = _grey_pixels(picture, opacity, grey)
    remark_on_pixels(path, pixels)
    return pixels


def read_picture_size(path: Path) -> tuple[int, int]:
    """Return the height and width of a picture, upright, from its header.

    Raises:
        PictureError: it cannot be read.
    """
    content = read_bytes(path, MAX_BYTES, PictureError, n_bytes=N_HEADER_BYTES)
    try:
        return _upright_size(content)
    except ValueError:  # the size may stand behind what was read
        return _size(path, read_bytes(path, MAX_BYTES, PictureError))


def read_picture_facts(path: Path) -> ImageFacts:
    """Read what tells a picture, without decoding it.

    Raises:
        PictureError: it cannot be read; damage within the pixels stays unseen.
    """
    content = read_bytes(path, MAX_BYTES, PictureError)
    rows, columns = _size(path, content)
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    return ImageFacts(rows=rows, columns=columns, patient_id="", pixel_digest=digest)


@contextmanager
def _decoding_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # decoders raise their own kinds
        raise PictureError(f"{path}: the picture cannot be decoded: {cause_of(error)}") from error


def _size(path: Path, content: bytes) -> tuple[int, int]:
    with _decoding_errors(path):
        return _upright_size(content)


def _upright_size(content: bytes) -> tuple[int, int]:
    """Return height and width as a viewer shows them.

    Raises:
        ValueError: the header is broken, or names no size of a radiograph.
    """
    size = picture_size(content)
    if not 0 < size.rows * size.columns <= MAX_PIXELS:
        raise ValueError(f"{size} pixels is not the size of a radiograph")
    lies = not content.startswith(PNG_MAGIC) and jpeg_orientation(content) > 4
    return (size.columns, size.rows) if lies else (size.rows, size.columns)


def _decode(path: Path) -> Picture:
    content = read_bytes(path, MAX_BYTES, PictureError)
    with _decoding_errors(path):
        _upright_size(content)
        return _decode_png(content) if content.startswith(PNG_MAGIC) else _decode_jpeg(content)


def _without_colour(path: Path, picture: Picture) -> tuple[Picture, FloatImage | None]:
    """Return grey values as stored, and the opacity, in [0, 1], where some of it is missing."""
    if picture.ndim == 2:
        return picture, None
    full = np.iinfo(picture.dtype).max
    has_opacity = picture.shape[2] in (2, 4)
    planes = picture[..., :-1] if has_opacity else picture
    if (planes.max(axis=2) - planes.min(axis=2)).max() > MAX_PLANE_DIFFERENCE * full / 255:
        raise PictureError(f"{path}: a colour picture; grey radiographs are read")
    middle = planes[..., planes.shape[2] // 2].copy()
    if not has_opacity or picture[..., -1].min() == full:
        return middle, None
    return middle, np.divide(picture[..., -1], full, dtype=np.float32)


def _grey_pixels(picture: Picture, opacity: FloatImage | None, grey: Grey) -> Pixels:
    """Turn stored values into grey; what is transparent lies before black."""
    if picture.dtype == np.uint8:
        shown = picture if opacity is None else np.rint(picture * opacity)
        return np.asarray(shown, dtype=np.uint8)
    if grey == "range":
        pixels = np.asarray(picture / np.float32(np.iinfo(np.uint16).max), dtype=np.float32)
    else:
        pixels = grey_between_percentiles(picture, None if opacity is None else opacity > 0)
    return pixels if opacity is None else pixels * opacity


def _decode_png(content: bytes) -> Picture:
    """Return (H, W), or (H, W, C): opacity is the last of 2 or 4 planes."""
    picture = imagecodecs.png_decode(content)
    if picture.dtype not in (np.uint8, np.uint16):
        raise ValueError("no PNG of 8 or 16 bits")
    return np.asarray(picture)


def _decode_jpeg(content: bytes) -> Picture:
    """Return (H, W) or (H, W, 3), upright; damage that others make up for is an error."""
    colours = simplejpeg.decode_jpeg_header(content)[2]
    picture = simplejpeg.decode_jpeg(content, "GRAY" if colours == "Gray" else "RGB")
    upright = _turn(picture, jpeg_orientation(content))
    return np.ascontiguousarray(upright[..., 0] if colours == "Gray" else upright)


def _turn(picture: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Put a picture upright whose EXIF orientation is 1 to 8: 5 to 8 lie on their side."""
    if orientation > 4:
        picture = picture.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        picture = picture[:, ::-1]
    if orientation in (3, 4, 7, 8):
        picture = picture[::-1]
    return picture
