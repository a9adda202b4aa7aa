"""One radiograph in the many encodings in which hospitals store it; all should look the same.

`ENCODINGS` maps a name to a function from the picture, (H, W) uint8 as a viewer should show it, to
the content of a file. Tests hold the readers to them, `scripts/benchmark.py encodings` a detector.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import cv2
import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

Picture = NDArray[np.uint8]
Stored = NDArray[Any]

UNIT = 8.66  # stored values to a grey level where anatomy takes half of 12 bits, 0 to 2208
CENTER, WIDTH = 1500.5, 600  # of a window; LINEAR shows 1201 as black and 1800 as white
BORDER = 40  # pixels of padding at each side
TWELVE_BITS: dict[str, Any] = {"BitsStored": 12, "HighBit": 11}


def make_file(stored: Stored, syntax: UID = ExplicitVRLittleEndian, **tags: Any) -> bytes:  # noqa: ANN401 - values of DICOM elements
    """Return a DICOM file of (H, W) stored values, signed or not; `tags` go on top."""
    n_bits = 8 * stored.dtype.itemsize
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    is_rle = syntax == RLELossless  # pydicom encodes that
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if is_rle else syntax
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = n_bits
    dataset.HighBit = n_bits - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.PixelData = _encode(stored, syntax)
    dataset["PixelData"].VR = "OB" if syntax.is_compressed or n_bits == 8 else "OW"
    if is_rle:
        dataset.compress(RLELossless, generate_instance_uid=False)
    dataset["PixelData"].is_undefined_length = syntax.is_compressed
    content = io.BytesIO()
    dataset.save_as(content, enforce_file_format=True)
    return content.getvalue()


def _encode(stored: Stored, syntax: UID) -> bytes:
    unsigned = np.ascontiguousarray(stored).view(f"u{stored.dtype.itemsize}")
    encoders: dict[UID, Callable[[Stored], bytes | bytearray]] = {
        JPEG2000Lossless: lambda x: imagecodecs.jpeg2k_encode(
            x, reversible=True, codecformat="j2k"
        ),
        JPEGLSLossless: imagecodecs.jpegls_encode,
        JPEGLosslessSV1: lambda x: imagecodecs.jpeg8_encode(x, lossless=True, predictor=1),
        JPEGExtended12Bit: lambda x: imagecodecs.jpeg8_encode(x, bitspersample=12, level=98),
    }
    if syntax in encoders:
        return encapsulate([bytes(encoders[syntax](unsigned))])
    return (stored.byteswap() if syntax == ExplicitVRBigEndian else stored).tobytes()


def make_table(outputs: NDArray[Any], *, first: int = 0, n_bits: int = 12) -> Dataset:
    """Return a LUT that maps `first`, `first` + 1, ... to `outputs`."""
    item = Dataset()
    item.LUTDescriptor = [len(outputs) % (1 << 16), first, n_bits]
    item.LUTData = outputs.astype("<u2").tobytes()
    item["LUTDescriptor"].VR, item["LUTData"].VR = "US", "OW"
    return item


def _half(picture: Picture) -> NDArray[np.uint16]:
    """Let the anatomy take the lower half of 12 bits."""
    return np.rint(picture * UNIT).astype(np.uint16)


def _in_window(picture: Picture) -> NDArray[np.uint16]:
    """Let the anatomy take what the window shows; a pixel of 0 and one of 4095 lie outside."""
    stored = np.rint(CENTER - WIDTH / 2 + 0.5 + picture * ((WIDTH - 1) / 255)).astype(np.uint16)
    stored[0, :2] = 0, 4095
    return stored


def _twelve(picture: Picture) -> NDArray[np.uint16]:
    return picture.astype(np.uint16) * 16


def _with_marker(picture: Picture) -> bytes:
    stored = _half(picture)
    stored[60:100, 60:100] = 4095
    return make_file(stored, **TWELVE_BITS)


def _with_hot_pixels(picture: Picture, value: int) -> bytes:
    stored = _half(picture)
    stored[[100, 300, 500], [700, 200, 400]] = value
    n_bits = value.bit_length()
    return make_file(stored, BitsStored=n_bits, HighBit=n_bits - 1)


def _with_border(picture: Picture, value: int) -> bytes:
    stored = _half(picture).astype(np.int16)
    for edge in range(4):
        np.rot90(stored, edge)[:BORDER] = value
    return make_file(stored, PixelPaddingValue=value)


def _ramp(low: float, high: float, n_entries: int = 4096) -> NDArray[np.float64]:
    """Return a LUT's outputs, 0 to 4095, that rise between two of its entries."""
    return np.rint(np.clip((np.arange(n_entries) - low) / (high - low), 0, 1) * 4095)


def _with_voi_lut(picture: Picture) -> bytes:
    outputs = _ramp(CENTER - WIDTH / 2 + 0.5, CENTER + WIDTH / 2 - 0.5)
    return make_file(_in_window(picture), VOILUTSequence=[make_table(outputs)], **TWELVE_BITS)


def _descending_voi_lut(picture: Picture) -> bytes:
    outputs = 4095 - _ramp(0, 4080)
    return make_file(4080 - _twelve(picture), VOILUTSequence=[make_table(outputs)], **TWELVE_BITS)


def _descending_modality_lut(picture: Picture) -> bytes:
    table = make_table(np.arange(4095, -1, -1))
    return make_file(4095 - _twelve(picture), ModalityLUTSequence=[table], **TWELVE_BITS)


def _with_scan_to_zero(picture: Picture) -> bytes:
    """Write the scan header as common encoders of CR images do: it ends at coefficient 0."""
    content = bytearray(make_file(_twelve(picture), JPEGExtended12Bit, **TWELVE_BITS))
    place = content.index(b"\xff\xda\x00\x08\x01") + 8
    assert content[place] == 63
    content[place] = 0
    return bytes(content)


def _without_meta_header(picture: Picture) -> bytes:
    content = make_file(_twelve(picture), ExplicitVRBigEndian, **TWELVE_BITS)
    return content[144 + int.from_bytes(content[140:144], "little") :]


def _sigmoid(picture: Picture) -> bytes:
    """Store what the sigmoid of a window turns into the picture, but for its two ends."""
    grey = np.clip(picture / 255, 0.005, 0.995)
    stored = np.rint(2048 + 1000 / 4 * np.log(grey / (1 - grey))).astype(np.uint16)
    window: dict[str, Any] = {
        "WindowCenter": "2048",
        "WindowWidth": "1000",
        "VOILUTFunction": "SIGMOID",
    }
    return make_file(stored, **window, **TWELVE_BITS)


def _png(picture: NDArray[Any]) -> bytes:
    return bytes(cv2.imencode(".png", picture)[1])


ENCODINGS: dict[str, Callable[[Picture], bytes]] = {
    "8 bits": make_file,
    "12 bits": lambda p: make_file(_twelve(p), **TWELVE_BITS),
    "white marker, 40 x 40 pixels": _with_marker,
    "3 hot pixels at 16383": lambda p: _with_hot_pixels(p, 16383),
    "3 hot pixels at 65535": lambda p: _with_hot_pixels(p, 65535),
    "padding of -2000": lambda p: _with_border(p, -2000),
    "padding of -32768": lambda p: _with_border(p, -32768),
    "window": lambda p: make_file(
        _in_window(p), WindowCenter=str(CENTER), WindowWidth=str(WIDTH), **TWELVE_BITS
    ),
    "window, LINEAR_EXACT": lambda p: make_file(
        _in_window(p), WindowCenter=str(CENTER), WindowWidth=str(WIDTH - 1),
        VOILUTFunction="LINEAR_EXACT", **TWELVE_BITS
    ),
    "window, SIGMOID": _sigmoid,
    "two windows": lambda p: make_file(
        _in_window(p), WindowCenter=[str(CENTER), "9"], WindowWidth=[str(WIDTH), "9"], **TWELVE_BITS
    ),
    "window of width 1": lambda p: make_file(
        _half(p), WindowCenter="1", WindowWidth="1", **TWELVE_BITS
    ),
    "window that shows white": lambda p: make_file(
        _half(p), WindowCenter="-500", WindowWidth="100", **TWELVE_BITS
    ),
    "VOI LUT": _with_voi_lut,
    "VOI LUT, descending": _descending_voi_lut,
    "modality LUT, descending": _descending_modality_lut,
    "rescale slope -1": lambda p: make_file(
        4095 - _twelve(p), RescaleSlope="-1", RescaleIntercept="4095", **TWELVE_BITS
    ),
    "MONOCHROME1": lambda p: make_file(
        4080 - _twelve(p), PhotometricInterpretation="MONOCHROME1", **TWELVE_BITS
    ),
    "MONOCHROME1, shape INVERSE": lambda p: make_file(
        4080 - _twelve(p), PhotometricInterpretation="MONOCHROME1",
        PresentationLUTShape="INVERSE", **TWELVE_BITS
    ),
    "MONOCHROME2, shape INVERSE": lambda p: make_file(
        4080 - _twelve(p), PresentationLUTShape="INVERSE", **TWELVE_BITS
    ),
    "signed": lambda p: make_file(_twelve(p).astype(np.int16) - 2048),
    "32 bits": lambda p: make_file(p.astype(np.uint32) * 1_000_000),
    "overlay above 12 bits": lambda p: make_file(
        _twelve(p) | (np.indices(p.shape).sum(0) % 16 << 12).astype(np.uint16), **TWELVE_BITS
    ),
    "overlay, JPEG 2000": lambda p: make_file(
        _twelve(p) | (np.indices(p.shape).sum(0) % 16 << 12).astype(np.uint16), JPEG2000Lossless,
        **TWELVE_BITS
    ),
    "signed, JPEG 2000": lambda p: make_file(
        _twelve(p).astype(np.int16) - 2048, JPEG2000Lossless
    ),
    "JPEG lossless": lambda p: make_file(_twelve(p), JPEGLosslessSV1, **TWELVE_BITS),
    "JPEG-LS": lambda p: make_file(_twelve(p), JPEGLSLossless, **TWELVE_BITS),
    "JPEG Extended": lambda p: make_file(_twelve(p), JPEGExtended12Bit, **TWELVE_BITS),
    "JPEG Extended, scan to 0": _with_scan_to_zero,
    "RLE": lambda p: make_file(_twelve(p), RLELossless, **TWELVE_BITS),
    "big endian without meta header": _without_meta_header,
    "PNG of 16 bits with 12": lambda p: _png(_twelve(p)),
}  # fmt: skip
