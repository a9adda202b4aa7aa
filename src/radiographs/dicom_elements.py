"""The few elements of a DICOM file that name and make an image, read within bounds.

pydicom believes what a file says of itself. Here a hostile file is refused before it costs much: a
deflated one that grows without end, a header of millions of items, a number that is a megabyte
long. All limits are far above what real files have.
"""

from __future__ import annotations

import io
import zlib

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset, read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import ExplicitVRLittleEndian

from src.radiographs.header_groups import GROUP_TAGS
from src.radiographs.pixels import MAX_PIXELS

MAX_BYTES = 4 * MAX_PIXELS + 2**24  # of a file, deflated or not: 32 bits to a pixel, and a header
MAX_READS = 100_000  # pydicom's, of a file; a real one needs some hundred
MAX_VALUE_BYTES = 2**20  # before the pixels; icons within sequences are the largest there
MAX_IMAGE_VALUE_BYTES = 1024  # of the elements below, but for the pixels

PIXEL_DATA = Tag("PixelData")
TABLES = (Tag("ModalityLUTSequence"), Tag("VOILUTSequence"))  # they may be longer
ELEMENTS: list[BaseTag | int] = [
    Tag(name)
    for name in (
        "SpecificCharacterSet",
        "SOPInstanceUID",
        "PatientID",
        *GROUP_TAGS,
        "SamplesPerPixel",
        "PhotometricInterpretation",
        "PlanarConfiguration",
        "NumberOfFrames",
        "Rows",
        "Columns",
        "BitsAllocated",
        "BitsStored",
        "HighBit",
        "PixelRepresentation",
        "PixelPaddingValue",
        "PixelPaddingRangeLimit",
        "WindowCenter",
        "WindowWidth",
        "RescaleIntercept",
        "RescaleSlope",
        "VOILUTFunction",
        "ModalityLUTSequence",
        "VOILUTSequence",
        "PresentationLUTShape",
        "PixelData",
    )
]


class _DeflatedError(Exception):
    """What follows in the file is deflated; pydicom would inflate it all at once."""


class _Source(io.BytesIO):
    """The bytes of a file, for pydicom to read: not too often, and not too much at a time."""

    def __init__(self, content: bytes, *, with_pixels: bool) -> None:
        super().__init__(content)
        self.with_pixels = with_pixels
        self.is_at_pixels = False
        self.n_reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to `size` bytes; only deflated data is asked for without a size."""
        if size is None or size < 0:
            raise _DeflatedError
        self.n_reads += 1
        if self.n_reads > MAX_READS:
            raise ValueError(f"more than {MAX_READS} parts before or around the pixels")
        if size > MAX_VALUE_BYTES and not self.is_at_pixels:
            raise ValueError(f"an element of {size} bytes before the pixels")
        return super().read(size)

    def stops_at(self, tag: BaseTag, _: str | None, length: int) -> bool:
        """Say, as pydicom asks before each element, whether enough is read."""
        if tag == PIXEL_DATA and self.with_pixels and not self.is_at_pixels:
            self.is_at_pixels = True
            return False
        if self.is_at_pixels or tag == PIXEL_DATA:
            return True
        if tag in ELEMENTS and tag not in TABLES and length > MAX_IMAGE_VALUE_BYTES:
            raise ValueError(f"element {tag} has {length} bytes")
        return False


def read_elements(content: bytes, *, with_pixels: bool) -> Dataset:
    """Read the elements that describe the image, and its pixels.

    Args:
        content: of a DICOM file, also one without the preamble of part 10.
        with_pixels: otherwise everything from the pixels on is left alone.

    Returns:
        Those of `ELEMENTS` that are there, with `file_meta`.

    Raises:
        Exception: of many kinds; the file is broken, or exceeds a limit.
    """
    source = _Source(content, with_pixels=with_pixels)
    try:
        return read_partial(source, source.stops_at, force=True, specific_tags=ELEMENTS)
    except _DeflatedError:
        inflated = _Source(_inflate(content[source.tell() :]), with_pixels=with_pixels)
    dataset = read_dataset(
        inflated, False, True, stop_when=inflated.stops_at, specific_tags=ELEMENTS
    )
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian  # as it is now
    return dataset


def _inflate(deflated: bytes) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)  # without the header of zlib, as DICOM has it
    content = inflater.decompress(deflated, MAX_BYTES)
    if inflater.unconsumed_tail:
        raise ValueError(f"inflates to more than {MAX_BYTES} bytes")
    return content
