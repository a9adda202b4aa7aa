"""One DICOM file to the pixels that the network sees.

The challenge's files (8 bits, MONOCHROME2, no rescaling) come out exactly as the original release
scaled them: the stored value / 255. Every other kind is brought to the same range on purpose, by
default as a viewer shows it (`src.radiographs.grey_values`). A colour file whose planes agree is a
grey picture and taken as one; real colour is refused, and so are several frames, which are not one
radiograph.
"""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import NamedTuple

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from src.radiographs.challenge_dicom import read_challenge_pixels, read_challenge_size
from src.radiographs.dicom_elements import MAX_BYTES, read_elements
from src.radiographs.grey_values import grey_pixels
from src.radiographs.header_groups import HeaderGroups, header_groups
from src.radiographs.pixels import MAX_PIXELS, FloatImage, Pixels, as_float
from src.radiographs.remarks import remark, remark_on_pixels
from src.radiographs.stored_values import (
    check_pixel_data,
    photometry,
    read_bits,
    read_coding,
)
from src.structures import Grey
from src.system.errors import InputError
from src.system.files import read_bytes

N_HEADER_BYTES = 2**16  # before the pixels, in nearly all files
GREY = ("MONOCHROME1", "MONOCHROME2")
# What the data elements show where no header names it: implicit or not, little endian or not.
_SYNTAX_OF: dict[tuple[bool | None, bool | None], UID] = {
    (True, True): ImplicitVRLittleEndian,
    (False, True): ExplicitVRLittleEndian,
    (False, False): ExplicitVRBigEndian,
}
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


class DicomError(InputError):
    """A file that gives no radiograph; the message names the file and the cause."""


class ImageFacts(NamedTuple):
    """What a file says of its image; `pixel_digest` is the same for the same stored pixels."""

    rows: int
    columns: int
    patient_id: str
    pixel_digest: str
    groups: HeaderGroups = HeaderGroups()

    @property
    def size(self) -> str:
        return f"{self.rows} x {self.columns}"


def read_image(path: Path, *, grey: Grey = "viewer") -> FloatImage:
    """Read a radiograph.

    Args:
        path: a DICOM file, also one without the preamble of part 10.
        grey: how stored values become grey, where they are not plain 8-bit.

    Returns:
        (H, W) in [0, 1], bright where much was absorbed (bone).

    Raises:
        DicomError: the file is missing, no DICOM, broken, or not one grey image.
    """
    return as_float(read_pixels(path, grey=grey))


def read_pixels(path: Path, *, grey: Grey = "viewer") -> Pixels:
    """Read a radiograph as `read_image` does, but leave what is plain 8-bit as it is stored.

    Returns:
        (H, W) uint8 whose value / 255 is the image, or the image as float32.
    """
    pixels: Pixels | None = read_challenge_pixels(path)
    if pixels is None:
        pixels = _read_any_kind(path, grey)
    remark_on_pixels(path, pixels)
    return pixels


def _read_any_kind(path: Path, grey: Grey) -> Pixels:
    dataset = _read_dataset(path)
    _check_header(path, dataset)
    with warnings.catch_warnings(record=True):  # pydicom's do not name the file
        try:
            coding = read_coding(dataset)
            bits = read_bits(dataset)
        except Exception as error:  # decoders raise their own kinds, pydicom many
            raise DicomError(f"{path}: the pixels cannot be decoded: {cause_of(error)}") from error
        try:
            pixels, remarks = grey_pixels(bits, coding, dataset, grey)
        except Exception as error:
            raise DicomError(f"{path}: broken header: {cause_of(error)}") from error
    for kind in remarks:
        remark(path, kind)
    return pixels


def image_size(path: Path) -> tuple[int, int]:
    """Return an image's height and width from its header.

    Raises:
        DicomError: as `read_image`, as far as the header tells.
    """
    challenge_size = read_challenge_size(path)
    if challenge_size is not None:
        return challenge_size
    try:
        return _header_size(path, n_bytes=N_HEADER_BYTES)
    except DicomError:  # the header is longer, or something is wrong
        return _header_size(path)


def _header_size(path: Path, *, n_bytes: int | None = None) -> tuple[int, int]:
    dataset = _read_dataset(path, stop_before_pixels=True, n_bytes=n_bytes)
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
    try:
        check_pixel_data(dataset)
    except Exception as error:
        raise DicomError(f"{path}: the pixels cannot be decoded: {cause_of(error)}") from error
    try:
        return ImageFacts(
            rows=int(dataset.Rows),
            columns=int(dataset.Columns),
            patient_id=str(dataset.get("PatientID", "")),
            pixel_digest=hashlib.blake2b(dataset.PixelData, digest_size=16).hexdigest(),
            groups=header_groups(dataset),
        )
    except Exception as error:
        raise DicomError(f"{path}: broken header: {cause_of(error)}") from error


def _read_dataset(
    path: Path, *, stop_before_pixels: bool = False, n_bytes: int | None = None
) -> Dataset:
    content = read_bytes(path, MAX_BYTES, DicomError, n_bytes=n_bytes)
    if not content:
        raise DicomError(f"{path}: the file is empty")
    try:
        with warnings.catch_warnings(record=True):  # what matters comes back as an error
            dataset = read_elements(content, with_pixels=not stop_before_pixels)
    except Exception as error:  # a broken file makes pydicom raise nearly anything
        raise DicomError(f"{path}: not a readable DICOM file: {cause_of(error)}") from error
    # Anything can be read as elements; what has no image size was never an image.
    if "Rows" not in dataset or "Columns" not in dataset:
        if content[128:132] == b"DICM":
            raise DicomError(f"{path}: truncated, or no image: it has no Rows and Columns")
        raise DicomError(f"{path}: neither a DICOM, PNG nor JPEG file")
    if "TransferSyntaxUID" not in dataset.file_meta:  # files older than part 10
        dataset.file_meta = dataset.file_meta or FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = _SYNTAX_OF.get(
            dataset.original_encoding, ImplicitVRLittleEndian
        )
    return dataset


def _check_header(path: Path, dataset: Dataset, *, has_pixels: bool = True) -> None:
    """Refuse, before memory is taken, what is not one image of a sane size."""
    try:
        rows, columns = int(dataset.Rows), int(dataset.Columns)
        frames = int(dataset.get("NumberOfFrames", None) or 1)
        kind = photometry(dataset)
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


def cause_of(error: Exception) -> str:
    """Say in one line what a library objected to."""
    return " ".join(str(error).split()) or type(error).__name__
