"""One DICOM file to the pixels that the network sees.

The challenge's files (8 bits, MONOCHROME2, no rescaling) come out exactly as the original release
scaled them: the stored value / 255. Every other kind is brought to the same range on purpose:

- The modality's RescaleSlope and RescaleIntercept are applied.
- Anything that is not plain 8-bit is stretched so that its darkest pixel is 0 and its brightest 1:
  stored ranges of 10 to 16 bit detectors are hardly ever used in full. Window tags, which are
  advice for a display, are not applied.
- MONOCHROME1 is inverted, so that bone is bright and air dark everywhere.
- A colour file whose planes agree is a grey picture and taken as one; real colour is refused.
- Several frames are refused, for they are not one radiograph.
"""

from __future__ import annotations

import math
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import simplejpeg
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import generate_frames
from pydicom.uid import ImplicitVRLittleEndian, JPEGBaseline8Bit

from src.datasets.challenge_dicom import read_challenge_pixels, read_challenge_size
from src.datasets.pixels import MAX_PIXELS, FloatImage, Pixels, as_float
from src.errors import InputError

MAX_PLANE_DIFFERENCE = 4  # grey levels; lossy colour coding moves equal planes apart by so much
GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


class DicomError(InputError):
    """A file that gives no radiograph; the message names the file and the cause."""


def read_image(path: Path) -> FloatImage:
    """Read a radiograph.

    Args:
        path: a DICOM file, also one without the preamble of part 10.

    Returns:
        (H, W) in [0, 1], bright where much was absorbed (bone).

    Raises:
        DicomError: the file is missing, no DICOM, broken, or not one grey image.
    """
    return as_float(read_pixels(path))


def read_pixels(path: Path) -> Pixels:
    """Read a radiograph as `read_image` does, but leave what is plain 8-bit as it is stored.

    Returns:
        (H, W) uint8 whose value / 255 is the image, or the image as float32.
    """
    challenge_pixels = read_challenge_pixels(path)
    return _read_any_kind(path) if challenge_pixels is None else challenge_pixels


def _read_any_kind(path: Path) -> Pixels:
    dataset = _read_dataset(path)
    _check_header(path, dataset)
    slope, intercept = _rescale(path, dataset)
    stored = _decode(path, dataset)
    if stored.ndim == 3:
        stored = _grey_from_colour(path, stored)
    pixels = _scale(stored, slope, intercept)
    inverted = dataset.PhotometricInterpretation == "MONOCHROME1"
    return 1 - as_float(pixels) if inverted else pixels


def image_size(path: Path) -> tuple[int, int]:
    """Return an image's height and width from its header.

    Raises:
        DicomError: as `read_image`, as far as the header tells.
    """
    challenge_size = read_challenge_size(path)
    if challenge_size is not None:
        return challenge_size
    dataset = _read_dataset(path, stop_before_pixels=True)
    _check_header(path, dataset, has_pixels=False)
    return int(dataset.Rows), int(dataset.Columns)


def _read_dataset(path: Path, *, stop_before_pixels: bool = False) -> FileDataset:
    try:
        if os.path.getsize(path) == 0:  # noqa: PTH202 - once for each image
            raise DicomError(f"{path}: the file is empty")
        with warnings.catch_warnings(record=True):  # what matters comes back as an error
            dataset = pydicom.dcmread(path, force=True, stop_before_pixels=stop_before_pixels)
        # force reads anything; what has no image size was never an image.
        if "Rows" not in dataset or "Columns" not in dataset:
            raise DicomError(f"{path}: {_what_lacks_a_size(path)}")
    except DicomError:
        raise
    except OSError as error:
        raise DicomError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a broken file makes pydicom raise nearly anything
        raise DicomError(f"{path}: not a readable DICOM file: {_cause(error)}") from error
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta = dataset.file_meta or FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian  # files older than part 10
    return dataset


def _what_lacks_a_size(path: Path) -> str:
    with path.open("rb") as file:
        is_dicom = file.read(132)[128:] == b"DICM"
    return "truncated, or no image: it has no Rows and Columns" if is_dicom else "not a DICOM file"


def _check_header(path: Path, dataset: FileDataset, *, has_pixels: bool = True) -> None:
    """Refuse, before memory is taken, what is not one image of a sane size."""
    try:
        rows, columns = int(dataset.Rows), int(dataset.Columns)
        frames = int(dataset.get("NumberOfFrames", None) or 1)
        kind = str(dataset.get("PhotometricInterpretation", ""))
        bits = int(dataset.BitsAllocated)
        lacks_pixels = has_pixels and not dataset.get("PixelData")
    except Exception as error:
        raise DicomError(f"{path}: broken header: {_cause(error)}") from error
    if not 0 < rows * columns <= MAX_PIXELS or rows < 0:
        raise DicomError(f"{path}: {rows} x {columns} pixels is not the size of a radiograph")
    if frames != 1:
        raise DicomError(f"{path}: has {frames} frames; one image to a file is read")
    if kind not in GREY + COLOUR:
        raise DicomError(f"{path}: photometric interpretation {kind!r} is not grey")
    if bits not in (8, 16, 32):
        raise DicomError(f"{path}: {bits} bits allocated; 8, 16 or 32 are read")
    if lacks_pixels:
        raise DicomError(f"{path}: has no pixel data")


def _decode(path: Path, dataset: FileDataset) -> NDArray[Any]:
    """Return the stored values, (H, W) or (H, W, 3)."""
    try:
        if _is_challenge_kind(dataset):
            return _decode_jpeg(dataset)
        if dataset.file_meta.TransferSyntaxUID.is_deflated or not (
            dataset.file_meta.TransferSyntaxUID.is_compressed
        ):
            _check_length(path, dataset)
        stored = dataset.pixel_array
        if stored.shape[:2] != (dataset.Rows, dataset.Columns):
            raise DicomError(
                f"{path}: has the pixels of several frames; one image to a file is read"
            )
        return stored
    except DicomError:
        raise
    except Exception as error:  # decoders raise their own kinds, pydicom many
        raise DicomError(f"{path}: the pixels cannot be decoded: {_cause(error)}") from error


def _is_challenge_kind(dataset: FileDataset) -> bool:
    return bool(
        dataset.file_meta.TransferSyntaxUID == JPEGBaseline8Bit
        and dataset.get("SamplesPerPixel", 1) == 1
        and dataset.get("PixelRepresentation", 0) == 0
    )


def _decode_jpeg(dataset: FileDataset) -> NDArray[np.uint8]:
    """Decode a grey baseline JPEG; the same values as Pillow and libjpeg-turbo give."""
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    rows, columns, _, _ = simplejpeg.decode_jpeg_header(frame)
    if (rows, columns) != (dataset.Rows, dataset.Columns):
        raise ValueError(f"header says {dataset.Rows} x {dataset.Columns}, JPEG {rows} x {columns}")
    return np.asarray(simplejpeg.decode_jpeg(frame, colorspace="GRAY")[..., 0])


def _check_length(path: Path, dataset: FileDataset) -> None:
    """Hold the declared size of uncompressed pixels against the bytes."""
    samples = int(dataset.get("SamplesPerPixel", 1))
    expected = dataset.Rows * dataset.Columns * samples * dataset.BitsAllocated // 8
    found = len(dataset.PixelData)
    if found < expected:
        raise DicomError(f"{path}: truncated: {expected} bytes of pixels declared, {found} there")


def _grey_from_colour(path: Path, stored: NDArray[Any]) -> NDArray[Any]:
    planes = stored.astype(np.int64)
    if np.ptp(planes, axis=2).max() > MAX_PLANE_DIFFERENCE:
        raise DicomError(f"{path}: a colour image; grey radiographs are read")
    return np.asarray(stored[..., 1])


def _rescale(path: Path, dataset: FileDataset) -> tuple[float, float]:
    try:
        slope = float(dataset.get("RescaleSlope", None) or 1)
        intercept = float(dataset.get("RescaleIntercept", None) or 0)
    except Exception as error:
        raise DicomError(f"{path}: broken header: rescale: {_cause(error)}") from error
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise DicomError(f"{path}: broken header: rescale slope {slope}, intercept {intercept}")
    return slope, intercept


def _scale(stored: NDArray[Any], slope: float, intercept: float) -> Pixels:
    """Bring stored values to [0, 1], but for plain 8 bits."""
    if stored.dtype == np.uint8 and (slope, intercept) == (1, 0):
        return stored
    values = stored.astype(np.float64) * slope + intercept
    darkest, brightest = values.min(), values.max()
    if not brightest > darkest:
        return np.zeros(stored.shape, dtype=np.float32)
    return ((values - darkest) / (brightest - darkest)).astype(np.float32)


def _cause(error: Exception) -> str:
    """Say in one line what a library objected to."""
    return " ".join(str(error).split()) or type(error).__name__
