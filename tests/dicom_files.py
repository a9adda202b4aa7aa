"""DICOM files for the tests: small, in every encoding that can be written here."""

import struct

import imagecodecs
import numpy as np
import simplejpeg
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
)

# The example of ITU-T T.87, annex H.3: a JPEG-LS stream and what it decodes to.
JPEG_LS_STREAM = bytes.fromhex(
    "ffd8fff7000b080004000401011100ffda0008010100000000"
    "c000006c80208e01c00000574000006ee6000001bc18000005d800009160ffd9"
)
JPEG_LS_PIXELS = np.array(
    [[0, 0, 90, 74], [68, 50, 43, 205], [64, 145, 145, 145], [100, 145, 145, 145]], np.uint8
)


def make_dataset(pixels, syntax=ExplicitVRLittleEndian, **tags):
    """Describe uncompressed pixels, (H, W) or (H, W, 3), unsigned or signed; `tags` go on top."""
    big_endian = syntax == ExplicitVRBigEndian
    stored = pixels.astype(pixels.dtype.newbyteorder(">" if big_endian else "<"))
    n_bits = pixels.dtype.itemsize * 8
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    dataset.BitsAllocated = dataset.BitsStored = n_bits
    dataset.HighBit = n_bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    data = stored.tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OB" if n_bits == 8 else "OW"
    for name, value in tags.items():
        setattr(dataset, name, value)
    return dataset


def write_dicom(path, pixels, syntax=ExplicitVRLittleEndian, **tags):
    """Write uncompressed pixels and return the path."""
    make_dataset(pixels, syntax, **tags).save_as(path, enforce_file_format=True)
    return path


def write_stream(path, pixels, syntax, stream, **tags):
    """Write `stream`, the compressed form of `pixels`, and return the path."""
    dataset = make_dataset(pixels, syntax, **tags)
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path, enforce_file_format=True)
    return path


def encode_jpeg(pixels):
    """Encode (H, W) uint8 as grey baseline JPEG."""
    return simplejpeg.encode_jpeg(
        pixels[..., None], quality=90, colorspace="GRAY", colorsubsampling="Gray"
    )


def write_challenge_dicom(path, pixels, **tags):
    """Write (H, W) uint8 in the encoding of the challenge's files."""
    return write_stream(path, pixels, JPEGBaseline8Bit, encode_jpeg(pixels), **tags)


def encode_j2k(pixels, *, reversible=True, level=None, codecformat="j2k"):
    """Encode (H, W) as JPEG 2000; a lossy one with `level` dB; "jp2" wraps it in boxes."""
    return bytes(
        imagecodecs.jpeg2k_encode(
            pixels, reversible=reversible, level=level, codecformat=codecformat
        )
    )


def encode_rle(pixels):
    """Encode (H, W) uint8 as RLE: one segment, each row in runs of literal bytes."""
    runs = [row[i : i + 128] for row in pixels for i in range(0, len(row), 128)]
    segment = b"".join(bytes([len(run) - 1]) + run.tobytes() for run in runs)
    return struct.pack("<16L", 1, 64, *[0] * 14) + segment + b"\0" * (len(segment) % 2)


def encode_jpeg_lossless(pixels, precision):
    """Encode (H, W) as lossless JPEG: process 14, each pixel predicted by the one on its left.

    A slow and obvious encoder after ITU-T T.81, annex H. Every count of bits, 0 to 16, has a code
    of five bits, its own value.
    """
    n_rows, n_columns = pixels.shape
    values = pixels.astype(int)
    bits = ""
    for y in range(n_rows):
        for x in range(n_columns):
            above = values[y - 1, 0] if y else 1 << (precision - 1)
            predicted = values[y, x - 1] if x else above
            difference = int(values[y, x] - predicted)
            n_bits = abs(difference).bit_length()
            bits += f"{n_bits:05b}"
            if n_bits:
                low = difference if difference > 0 else difference + (1 << n_bits) - 1
                bits += f"{low:0{n_bits}b}"
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    frame = struct.pack(">BHHB", precision, n_rows, n_columns, 1) + b"\x01\x11\x00"
    codes = b"\x00" + bytes([0, 0, 0, 0, 17] + [0] * 11) + bytes(range(17))
    return b"".join(
        [
            b"\xff\xd8",
            _segment(0xC3, frame),
            _segment(0xC4, codes),
            _segment(0xDA, b"\x01\x01\x00\x01\x00\x00"),
            scan,
            b"\xff\xd9",
        ]
    )


def _segment(marker, content):
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content
