"""One DICOM file to the pixels that the network sees.

The challenge's files (8 bits, MONOCHROME2, no rescaling) come out exactly as the original release
scaled them: the stored value / 255. Every other kind is brought to the same range on purpose:

- Anything that is not plain 8-bit is stretched so that its darkest pixel is 0 and its brightest 1:
  stored ranges of 10 to 16 bit detectors are hardly ever used in full. Of the modality's
  RescaleSlope and RescaleIntercept the sign of the slope is left then. Window tags, which are
  advice for a display, are not applied.
- MONOCHROME1 is inverted, so that bone is bright and air dark everywhere.
- A colour file whose planes agree is a grey picture and taken as one; real colour is refused.
- Several frames are refused, for they are not one radiograph.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ImplicitVRLittleEndian, JPEGBaseline8Bit

from src.radiographs.challenge_dicom import read_challenge_pixels, read_challenge_size
from src.radiographs.codestreams import StreamSize, check_stream, take_frame
from src.radiographs.dicom_elements import MAX_BYTES, read_elements
from src.radiographs.pixels import MAX_PIXELS, FloatImage, Pixels, as_float
from src.system.errors import InputError
from src.system.files import read_bytes

MAX_PLANE_DIFFERENCE = 4  # grey levels; lossy colour coding moves equal planes apart by so much
GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


class DicomError(InputError):
    """A file that gives no radiograph; the message names the file and the cause."""


class ImageFacts(NamedTuple):
    """What a file says of its image; `pixel_digest` is the same for the same stored pixels."""

    rows: int
    columns: int
    patient_id: str
    pixel_digest: str

    @property
    def size(self) -> str:
        return f"{self.rows} x {self.columns}"


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


def read_facts(path: Path) -> ImageFacts:
    """Read what tells an image, without decoding it: its header, and a hash of its pixels.

    Raises:
        DicomError: as `read_image`, as far as the headers tell; damage within the pixels stays
            unseen.
    """
    dataset = _read_dataset(path)
    _check_header(path, dataset)
    _check_pixels(path, dataset)
    try:
        return ImageFacts(
            rows=int(dataset.Rows),
            columns=int(dataset.Columns),
            patient_id=str(dataset.get("PatientID", "")),
            pixel_digest=hashlib.blake2b(dataset.PixelData, digest_size=16).hexdigest(),
        )
    except Exception as error:
        raise DicomError(f"{path}: broken header: {cause_of(error)}") from error


def _read_dataset(path: Path, *, stop_before_pixels: bool = False) -> Dataset:
    content = read_bytes(path, MAX_BYTES, DicomError)
    if not content:
        raise DicomError(f"{path}: the file is empty")
    try:
        with warnings.catch_warnings(record=True):  # what matters comes back as an error
            dataset = read_elements(content, with_pixels=not stop_before_pixels)
    except Exception as error:  # a broken file makes pydicom raise nearly anything
        raise DicomError(f"{path}: not a readable DICOM file: {cause_of(error)}") from error
    # Anything can be read as elements; what has no image size was never an image.
    if "Rows" not in dataset or "Columns" not in dataset:
        is_dicom = content[128:132] == b"DICM"
        what = (
            "truncated, or no image: it has no Rows and Columns" if is_dicom else "not a DICOM file"
        )
        raise DicomError(f"{path}: {what}")
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta = dataset.file_meta or FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian  # files older than part 10
    return dataset


def _check_header(path: Path, dataset: Dataset, *, has_pixels: bool = True) -> None:
    """Refuse, before memory is taken, what is not one image of a sane size."""
    try:
        rows, columns = int(dataset.Rows), int(dataset.Columns)
        frames = int(dataset.get("NumberOfFrames", None) or 1)
        kind = str(dataset.get("PhotometricInterpretation", ""))
        bits = int(dataset.BitsAllocated)
        lacks_pixels = has_pixels and not dataset.get("PixelData")
    except Exception as error:
        raise DicomError(f"{path}: broken header: {cause_of(error)}") from error
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


def _decode(path: Path, dataset: Dataset) -> NDArray[Any]:
    """Return the stored values, (H, W) or (H, W, 3)."""
    frame = _check_pixels(path, dataset)
    try:
        if frame is not None and _is_challenge_kind(dataset):
            return np.asarray(simplejpeg.decode_jpeg(frame, colorspace="GRAY")[..., 0])
        if frame is not None:
            dataset.PixelData = encapsulate([frame])
        else:  # old files may have their bits at the upper end, which pydicom would cut off
            end = min((dataset.get("HighBit") or 0) + 1, dataset.BitsAllocated)
            if end > dataset.get("BitsStored", end):
                dataset.BitsStored = end
        stored = dataset.pixel_array
    except Exception as error:  # decoders raise their own kinds, pydicom many
        raise DicomError(f"{path}: the pixels cannot be decoded: {cause_of(error)}") from error
    if stored.shape[:2] != (dataset.Rows, dataset.Columns):
        raise DicomError(f"{path}: has the pixels of several frames; one image to a file is read")
    return stored


def _check_pixels(path: Path, dataset: Dataset) -> bytes | None:
    """Hold the pixels' own size against that of the header, before memory is taken for it.

    Returns:
        The compressed frame; None where the pixels are not compressed.
    """
    try:
        samples = int(dataset.get("SamplesPerPixel", 1))
        syntax = dataset.file_meta.TransferSyntaxUID
        if syntax.is_compressed:
            frame = take_frame(dataset.PixelData)
            check_stream(frame, syntax, StreamSize(dataset.Rows, dataset.Columns, samples))
            return frame
        expected = dataset.Rows * dataset.Columns * samples * dataset.BitsAllocated // 8
        found = len(dataset.PixelData)
    except Exception as error:
        raise DicomError(f"{path}: the pixels cannot be decoded: {cause_of(error)}") from error
    if found < expected:
        raise DicomError(f"{path}: truncated: {expected} bytes of pixels declared, {found} there")
    return None


def _is_challenge_kind(dataset: Dataset) -> bool:
    """Tell a grey baseline JPEG: simplejpeg gives the values that Pillow and libjpeg-turbo do."""
    return bool(
        dataset.file_meta.TransferSyntaxUID == JPEGBaseline8Bit
        and dataset.get("SamplesPerPixel", 1) == 1
        and dataset.get("PixelRepresentation", 0) == 0
    )


def _grey_from_colour(path: Path, stored: NDArray[Any]) -> NDArray[Any]:
    difference = np.subtract(stored.max(axis=2), stored.min(axis=2), dtype=np.int64)
    if difference.max() > MAX_PLANE_DIFFERENCE:
        raise DicomError(f"{path}: a colour image; grey radiographs are read")
    return np.asarray(stored[..., 1])


def _rescale(path: Path, dataset: Dataset) -> tuple[float, float]:
    try:
        slope = float(dataset.get("RescaleSlope", None) or 1)
        intercept = float(dataset.get("RescaleIntercept", None) or 0)
    except Exception as error:
        raise DicomError(f"{path}: broken header: rescale: {cause_of(error)}") from error
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise DicomError(f"{path}: broken header: rescale slope {slope}, intercept {intercept}")
    return slope, intercept


def _scale(stored: NDArray[Any], slope: float, intercept: float) -> Pixels:
    """Bring stored values to [0, 1], but for plain 8 bits."""
    if stored.dtype == np.uint8 and (slope, intercept) == (1, 0):
        return stored
    darkest, brightest = int(stored.min()), int(stored.max())
    if not brightest > darkest:
        return np.zeros(stored.shape, dtype=np.float32)
    values = stored.astype(np.float64)  # and all in place, for it may be large
    values -= darkest
    values /= brightest - darkest
    if slope < 0:  # all else of rescaling, stretching takes back
        np.subtract(1, values, out=values)
    return values.astype(np.float32)


def cause_of(error: Exception) -> str:
    """Say in one line what a library objected to."""
    return " ".join(str(error).split()) or type(error).__name__
