"""From the pixel data of a DICOM file to the bits that are stored for each pixel.

Decoding is left to libraries: simplejpeg for JPEG of 8 bits, because it refuses damage that other
decoders make up for; imagecodecs for other JPEG, JPEG-LS and JPEG 2000; pydicom for what is not
compressed. What a stream says of its own size is compared with the header before that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import (
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSTransferSyntaxes,
    RLELossless,
)

from src.radiographs.codestreams import (
    StreamSize,
    check_stream,
    rle_segments,
    take_frame,
    with_surplus,
)

MAX_PLANE_DIFFERENCE = 4  # grey levels; lossy colour coding moves equal planes apart by so much
NO_CHROMINANCE = 128  # of YBR_FULL, 8 bits (PS3.3, C.7.6.3.1.2)

REQUIRED = ("BitsAllocated", "BitsStored", "PixelRepresentation")

Bits = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.uint32]


@dataclass(frozen=True)
class Coding:
    """Which bits of a pixel are its stored value.

    Attributes:
        allocated: bits of a pixel.
        stored: bits that count.
        shift: bits below these.
        is_signed: the highest of them is the sign.
    """

    allocated: int
    stored: int
    shift: int
    is_signed: bool

    def values(self, bits: NDArray[Any]) -> NDArray[np.float64]:
        """Take the stored values out of bits; what lies beside them, as overlays, never counts."""
        values = bits.astype(np.int64) >> self.shift & (1 << self.stored) - 1
        if self.is_signed:
            values = np.where(values >> (self.stored - 1), values - (1 << self.stored), values)
        return values.astype(np.float64)

    def uses_more_bits(self, bits: NDArray[Any]) -> NDArray[np.bool_]:
        """Say where bits above the stored ones are set, other than those of a sign."""
        above = bits.astype(np.int64) >> self.shift + self.stored
        if not self.is_signed:
            return np.asarray(above != 0)
        full = (1 << self.allocated - self.shift - self.stored) - 1
        return np.asarray((above != 0) & ((above != full) | (self.values(bits) >= 0)))


def photometry(dataset: Dataset) -> str:
    """Return what the pixels' values stand for, such as MONOCHROME2, as the standard spells it."""
    return str(dataset.get("PhotometricInterpretation", "")).strip().upper()


def read_coding(dataset: Dataset) -> Coding:
    """Read from the header how values are stored.

    Raises:
        ValueError: an element is missing, or makes no sense.
    """
    for name in REQUIRED:
        if dataset.get(name) is None:
            raise ValueError(f"the header has no {name}")
    allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    if not 0 < stored <= allocated:
        raise ValueError(f"Bits Stored {stored} of {allocated} allocated")
    sign = int(dataset.PixelRepresentation)
    if sign not in (0, 1):
        raise ValueError(f"Pixel Representation {sign}, neither 0 nor 1")
    end = min(int(dataset.get("HighBit") or 0) + 1, allocated)
    shift = max(0, end - stored)  # old files have their values at the upper end of a pixel
    if shift and dataset.file_meta.TransferSyntaxUID.is_compressed:
        stored, shift = end, 0  # streams begin at the lowest bit, whatever the header says
    return Coding(allocated, stored, shift, bool(sign))


def check_pixel_data(dataset: Dataset) -> bytes | None:
    """Compare the size of the pixel data with the header, before memory is taken for it.

    Returns:
        The compressed frame; None where the pixels are not compressed.

    Raises:
        ValueError: the data are shorter than declared, or of another size.
    """
    samples = int(dataset.get("SamplesPerPixel", 1))
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_compressed:
        frame = take_frame(dataset.PixelData)
        check_stream(frame, syntax, StreamSize(dataset.Rows, dataset.Columns, samples))
        return frame
    expected = dataset.Rows * dataset.Columns * samples * dataset.BitsAllocated // 8
    found = len(dataset.PixelData)
    if found < expected:
        raise ValueError(f"truncated: {expected} bytes of pixels declared, {found} there")
    return None


def read_bits(dataset: Dataset) -> Bits:
    """Decode the pixels.

    Returns:
        (H, W) unsigned, as wide as the header says that a pixel is: sign, unused bits and overlays
        are still in it.

    Raises:
        Exception: of many kinds; the pixels cannot be decoded, or are in colour.
    """
    frame = check_pixel_data(dataset)
    decoded = _read_native(dataset) if frame is None else _decode(frame, dataset)
    if decoded.shape[:2] != (dataset.Rows, dataset.Columns):
        raise ValueError("the pixels of several frames; one image to a file is read")
    if decoded.ndim == 3:
        decoded = _grey_from_colour(decoded, has_luminance=photometry(dataset) == "YBR_FULL")
    width = dataset.BitsAllocated // 8
    if decoded.dtype.itemsize > width:
        raise ValueError(f"pixels of {8 * decoded.dtype.itemsize} bits, {8 * width} declared")
    wide = decoded.astype(f"{decoded.dtype.kind}{width}", copy=False)
    return np.ascontiguousarray(wide).view(f"u{width}")


def _read_native(dataset: Dataset) -> NDArray[Any]:
    """Read pixels that are not compressed; pydicom knows byte orders and orders of planes.

    It would drop bits, extend signs and know no other spelling; the header is changed for that.
    """
    dataset.BitsStored, dataset.HighBit = dataset.BitsAllocated, dataset.BitsAllocated - 1
    dataset.PixelRepresentation = 0
    dataset.PhotometricInterpretation = photometry(dataset)
    return np.asarray(dataset.pixel_array)


def _decode(frame: bytes, dataset: Dataset) -> NDArray[Any]:
    """Decode one compressed frame: (H, W) or (H, W, 3)."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax == RLELossless:
        return _decode_rle(frame, dataset)
    if syntax in JPEG2000TransferSyntaxes:
        return np.asarray(imagecodecs.jpeg2k_decode(frame))
    if syntax in JPEGLSTransferSyntaxes:
        return np.asarray(imagecodecs.jpegls_decode(frame))
    if syntax in (JPEGBaseline8Bit, JPEGExtended12Bit) and dataset.BitsAllocated == 8:
        if dataset.get("SamplesPerPixel", 1) == 1:
            return np.asarray(simplejpeg.decode_jpeg(frame, colorspace="GRAY")[..., 0])
        return np.asarray(simplejpeg.decode_jpeg(frame, colorspace="RGB"))
    return _decode_whole_jpeg(frame)


def _decode_whole_jpeg(frame: bytes) -> NDArray[Any]:
    """Decode JPEG of any kind by a decoder that fills up what is missing without a word."""
    pixels = np.asarray(imagecodecs.jpeg8_decode(frame))
    if not np.array_equal(pixels, imagecodecs.jpeg8_decode(with_surplus(frame))):
        raise ValueError("truncated: the JPEG stream ends before its last pixel")
    return pixels


def _decode_rle(frame: bytes, dataset: Dataset) -> NDArray[Any]:
    """Decode RLE (PS3.5, annex G): a segment for each byte of a pixel, the highest one first."""
    samples, width = int(dataset.get("SamplesPerPixel", 1)), dataset.BitsAllocated // 8
    segments = rle_segments(frame)
    if len(segments) != samples * width:
        raise ValueError(f"{len(segments)} segments of RLE, {samples * width} expected")
    n_pixels = dataset.Rows * dataset.Columns
    # A decoder that is told the length of its output writes no more than that.
    planes = [imagecodecs.packbits_decode(segment, out=n_pixels) for segment in segments]
    if min(map(len, planes)) < n_pixels:
        raise ValueError(f"truncated: a segment of {min(map(len, planes))} pixels")
    joined = np.frombuffer(b"".join(planes), np.uint8).reshape(samples, width, n_pixels)
    pixels = np.ascontiguousarray(joined.transpose(2, 0, 1)).view(f">u{width}")
    shape = (dataset.Rows, dataset.Columns, samples)
    return pixels.astype(f"=u{width}").reshape(shape[:2] if samples == 1 else shape)


def _grey_from_colour(decoded: NDArray[Any], *, has_luminance: bool) -> NDArray[Any]:
    """Take the grey of (H, W, 3), which decoders have brought to RGB or, of luminance, left alone.

    Raises:
        ValueError: there is colour in it.
    """
    difference = np.subtract(decoded.max(axis=2), decoded.min(axis=2), dtype=np.int64)
    if difference.max() <= MAX_PLANE_DIFFERENCE:
        return np.asarray(decoded[..., 1])
    chrominance = np.subtract(decoded[..., 1:], NO_CHROMINANCE, dtype=np.int64)
    if has_luminance and np.abs(chrominance).max() <= MAX_PLANE_DIFFERENCE:
        return np.asarray(decoded[..., 0])
    raise ValueError("a colour image; grey radiographs are read")
