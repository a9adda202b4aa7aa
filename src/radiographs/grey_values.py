"""From stored bits to the grey that a DICOM viewer shows; bone is bright, air dark.

In the order of the standard (PS3.4, annex N.2.1): stored values, modality LUT or rescale, VOI LUT
or window, inversion. Padding is left out of all and shown black. Where a file has neither VOI LUT
nor window, or one that is plainly wrong, the percentiles of its values take their place.

A pixel's grey follows from its stored value alone. So the chain runs once over the different
values of an image, and every pixel is looked up: `values`, `counts` and `shades` below have an
entry for each of them. pydicom's own functions go over every pixel in float64; beyond that, its
VOI LUT of 8 bits wraps around behind 256 entries, and its window turns an image with a negative
slope over. Where those two do not matter, a test compares both.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from src.radiographs.pixels import (
    MIN_BETWEEN,
    NEARLY_BLACK,
    NEARLY_WHITE,
    FloatImage,
    Pixels,
    as_float,
)
from src.radiographs.stored_values import Bits, Coding, photometry
from src.structures import WHITE, Grey

PERCENTILES = (0.5, 99.5)
# A window is plainly wrong where nearly everything is black or white, or where the percentiles of
# its greys lie closer together than this: it shows one grey.
MIN_SPREAD = 0.25
MIN_COUNTED = 0.05  # share of the pixels; where less is no padding, the padding is wrong
MAX_OVERLAY = 0.05  # share of the pixels; where more have bits above, these are of the picture

FloatArray = NDArray[np.float64]
Counts = NDArray[np.int64]
Mask = NDArray[np.bool_]


class GreyPixels(NamedTuple):
    """An image and what is odd about the way to it, as `src.radiographs.remarks.KINDS`."""

    pixels: Pixels
    remarks: tuple[str, ...] = ()


def grey_pixels(bits: Bits, coding: Coding, dataset: Dataset, grey: Grey) -> GreyPixels:
    """Turn stored bits into grey values.

    Args:
        bits: (H, W), of `read_bits`.
        coding: which of the bits count.
        dataset: the header.

    Returns:
        (H, W) uint8 as stored where that is plain 8-bit and not inverted, else float32.

    Raises:
        Exception: of many kinds; the header's values make no sense.
    """
    inverted, remarks = _is_inverted(dataset, grey)
    if bits.dtype == np.uint8 and _is_plain(dataset, coding, grey):
        plain = np.asarray(bits if coding.stored == 8 else coding.values(bits), np.uint8)
        return GreyPixels(1 - as_float(plain) if inverted else plain, remarks)
    codes, counts, index = _different_values(bits)
    stored = coding.values(codes)
    padding = np.zeros(stored.shape, bool)
    if grey == "range":
        shades = _stretch(stored, _slope_and_intercept(dataset)[0])
    else:
        padding = _is_padding(codes, stored, dataset, coding)
        if counts[~padding].sum() < MIN_COUNTED * counts.sum():
            remarks += ("padding",)
            padding[:] = False
        if counts[coding.uses_more_bits(codes) & ~padding].sum() > MAX_OVERLAY * counts.sum():
            remarks += ("bits",)
        shades, odd = _viewer_shades(stored, counts, padding, coding, dataset)
        remarks += odd
    table = shades.astype(np.float32)
    table = np.where(padding, np.float32(0), 1 - table if inverted else table)
    return GreyPixels(_look_up_pixels(bits, codes, table, index), remarks)


def _is_inverted(dataset: Dataset, grey: Grey) -> tuple[bool, tuple[str, ...]]:
    """Say whether low values are bright, and whether the header contradicts itself.

    MONOCHROME1 inverts, with the presentation LUT shape INVERSE or without it. MONOCHROME2 with
    INVERSE contradicts itself: the viewers of DCMTK and dcm4che (Weasis) invert it, and so does
    this.
    """
    is_monochrome1 = photometry(dataset) == "MONOCHROME1"
    shape = str(dataset.get("PresentationLUTShape") or "").strip().upper()
    if grey == "range" or shape not in ("INVERSE", "IDENTITY"):
        return is_monochrome1, ()
    is_odd = is_monochrome1 != (shape == "INVERSE")
    return is_monochrome1 or shape == "INVERSE", ("inversion",) if is_odd else ()


def _is_plain(dataset: Dataset, coding: Coding, grey: Grey) -> bool:
    """Say whether 8 bits stand for value / 255, as in the challenge's files."""
    if coding.is_signed or _slope_and_intercept(dataset) != (1, 0):
        return False
    if grey == "range":
        return True
    if coding.stored != 8 or _padding(dataset, coding) is not None:
        return False
    if dataset.get("ModalityLUTSequence") or dataset.get("VOILUTSequence"):
        return False
    window = _window(dataset)
    return window is None or window.is_identity


def _different_values(bits: Bits) -> tuple[NDArray[Any], Counts, NDArray[np.intp] | None]:
    """Return the different bits of an image, how many pixels have each, and for 32 bits where."""
    if bits.dtype.itemsize <= 2:
        counts = np.bincount(bits.ravel())
        codes = np.flatnonzero(counts)
        return codes, counts[codes], None
    codes, index, counts = np.unique(bits, return_inverse=True, return_counts=True)
    return codes.astype(np.int64), counts, index


def _look_up_pixels(
    bits: Bits, codes: NDArray[Any], shades: NDArray[np.float32], index: NDArray[np.intp] | None
) -> FloatImage:
    if index is not None:
        return np.asarray(shades[index].reshape(bits.shape))
    table = np.zeros(int(codes.max()) + 1, np.float32)
    table[codes] = shades
    return np.asarray(np.take(table, bits))


def _viewer_shades(
    stored: FloatArray, counts: Counts, padding: Mask, coding: Coding, dataset: Dataset
) -> tuple[FloatArray, tuple[str, ...]]:
    """Run the chain, but for the inversion, over the different values of an image."""
    values = _modality_values(stored, dataset)
    shades = _voi_shades(values, dataset)
    is_wrong = shades is not None and _is_plainly_wrong(shades[~padding], counts[~padding])
    remarks = ("window",) if is_wrong else ()
    if shades is not None and not is_wrong:
        return shades, remarks
    if coding.allocated == 8 and _is_plain_behind_window(dataset, coding):
        return stored / WHITE, remarks
    return _between_percentiles(values, counts, ~padding), remarks


def _is_plain_behind_window(dataset: Dataset, coding: Coding) -> bool:
    """Say whether 8 bits would be plain without VOI LUT, window and padding."""
    is_rescaled = _slope_and_intercept(dataset) != (1, 0) or dataset.get("ModalityLUTSequence")
    return coding.stored == 8 and not coding.is_signed and not is_rescaled


# Padding (PS3.3, C.7.5.1.1.2)


def _padding(dataset: Dataset, coding: Coding) -> tuple[int, int] | None:
    """Return the lowest and highest value that mark pixels without image; None if none can."""
    value = dataset.get("PixelPaddingValue")
    if value is None or value == "":
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = [int(value), int(value if limit is None or limit == "" else limit)]
    # Writers take the wrong one of signed and unsigned: the same bits in the pixels' own kind.
    full = 1 << coding.allocated
    if any(not -(full // 2) <= end < full for end in ends):
        return None  # left over from pixels of more bits
    ends = [end % full for end in ends]
    if coding.is_signed:
        ends = [end - full if end >= full // 2 else end for end in ends]
    return min(ends), max(ends)


def _is_padding(codes: NDArray[Any], stored: FloatArray, dataset: Dataset, coding: Coding) -> Mask:
    padding = _padding(dataset, coding)
    if padding is None:
        return np.zeros(stored.shape, bool)
    low, high = padding
    # A padding value may need more bits than those that are stored, as -2000 beside 12 bits.
    all_bits = replace(coding, stored=coding.allocated, shift=0).values(codes)
    return ((stored >= low) & (stored <= high)) | ((all_bits >= low) & (all_bits <= high))


# Modality LUT or rescale (PS3.3, C.11.1)


def _modality_values(stored: FloatArray, dataset: Dataset) -> FloatArray:
    sequence = dataset.get("ModalityLUTSequence")
    if sequence:
        return _lookup_table(sequence[0]).apply(stored)
    slope, intercept = _slope_and_intercept(dataset)
    with np.errstate(over="ignore", invalid="ignore"):
        values = stored * slope + intercept
    if not np.isfinite(values).all() or (len(values) > 1 and values.min() == values.max()):
        return stored * math.copysign(1, slope)  # absurd numbers; their sign is left
    return np.asarray(values)


def _slope_and_intercept(dataset: Dataset) -> tuple[float, float]:
    slope = float(dataset.get("RescaleSlope", None) or 1)
    intercept = float(dataset.get("RescaleIntercept", None) or 0)
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise ValueError(f"rescale slope {slope}, intercept {intercept}")
    return slope, intercept


class _LookupTable(NamedTuple):
    """A table of PS3.3, C.11.1 or C.11.2: the first value that it maps, and what it maps to."""

    first: int
    outputs: FloatArray
    full: int  # the largest output that its number of bits can hold

    def apply(self, values: FloatArray) -> FloatArray:
        """Look values up; beyond the ends of the table its ends count."""
        first = self.first
        if first >= 1 << 15 and values.min() < 0:  # written as unsigned beside signed pixels
            first -= 1 << 16
        places = np.clip(np.rint(values) - first, 0, len(self.outputs) - 1)
        return self.outputs[places.astype(np.intp)]


def _lookup_table(item: Dataset) -> _LookupTable:
    """Read a LUT.

    Raises:
        ValueError: it has fewer entries than it declares.
    """
    n_entries, first, n_bits = (int(number) for number in item.LUTDescriptor)
    n_entries = n_entries % (1 << 16) or 1 << 16  # 0 stands for 65536
    data = item.LUTData
    if isinstance(data, (bytes, bytearray)):
        order = "<" if item.original_encoding[1] in (None, True) else ">"
        data = np.frombuffer(data, f"{order}u2" if len(data) >= 2 * n_entries else np.uint8)
    else:
        data = np.atleast_1d(np.asarray(data, np.int64)) & 0xFFFF
        if len(data) < n_entries <= 2 * len(data):  # two entries of 8 bits in one number
            data = data.astype("<u2").view(np.uint8)
    if len(data) < n_entries or not 1 <= n_bits <= 16:
        raise ValueError(f"a LUT of {len(data)} entries, {n_entries} of {n_bits} bits declared")
    return _LookupTable(first, data[:n_entries].astype(np.float64), (1 << n_bits) - 1)


# VOI LUT or window (PS3.3, C.11.2)


class _Window(NamedTuple):
    center: float
    width: float
    function: str  # LINEAR, LINEAR_EXACT or SIGMOID

    @property
    def ramp(self) -> tuple[float, float]:
        """Return the values at which the greys begin and end."""
        center, width = self.center, self.width
        if self.function != "LINEAR_EXACT":  # LINEAR counts steps between whole values
            center, width = center - 0.5, width - 1
        return center - width / 2, center + width / 2

    @property
    def is_identity(self) -> bool:
        """Say whether it shows 0 to 255 as they are, to one grey level."""
        low, high = self.ramp
        return self.function != "SIGMOID" and abs(low) <= 1 and abs(high - 255) <= 1

    @property
    def is_possible(self) -> bool:
        low, high = self.ramp
        is_wide = self.width > 0 if self.function == "SIGMOID" else high > low
        return is_wide and math.isfinite(low) and math.isfinite(high)

    def apply(self, values: FloatArray) -> FloatArray:
        """Return greys in [0, 1]."""
        if self.function == "SIGMOID":
            with np.errstate(over="ignore"):
                return np.asarray(1 / (1 + np.exp(-4 * (values - self.center) / self.width)))
        low, high = self.ramp
        return np.clip((values - low) / (high - low), 0, 1)


def _window(dataset: Dataset) -> _Window | None:
    """Read the first window; None if there is none. One that is no number is not possible."""
    center, width = (_first(dataset.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if center is None or width is None:
        return None
    function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    try:
        return _Window(float(center), float(width), function)
    except (ValueError, TypeError):
        return _Window(math.nan, math.nan, function)


def _first(value: Any) -> Any:  # noqa: ANN401 - whatever pydicom makes of a value
    """Return the first of several values; None for an empty one."""
    if isinstance(value, (MultiValue, list, tuple)):
        value = value[0] if value else None
    return None if value == "" else value


def _voi_shades(values: FloatArray, dataset: Dataset) -> FloatArray | None:
    """Apply the first VOI LUT, else the first window; None if there is neither.

    What cannot be applied, as a window of width 1, gives one grey: it is plainly wrong.
    """
    nothing = np.zeros(values.shape)
    sequence = dataset.get("VOILUTSequence")
    if sequence:
        try:
            table = _lookup_table(sequence[0])
        except (ValueError, TypeError, AttributeError):
            return nothing
        return np.minimum(table.apply(values) / table.full, 1)
    window = _window(dataset)
    if window is None:
        return None
    return window.apply(values) if window.is_possible else nothing


def _is_plainly_wrong(shades: FloatArray, counts: Counts) -> bool:
    """Say whether nearly everything is black or white, or one grey."""
    between = counts[(shades > NEARLY_BLACK) & (shades < NEARLY_WHITE)].sum() / counts.sum()
    low, high = _percentiles(shades, counts)
    return bool(between < MIN_BETWEEN or high - low < MIN_SPREAD)


# Without LUT and window


def grey_between_percentiles(bits: Bits, counted: Mask | None) -> FloatImage:
    """Stretch stored values from percentile to percentile.

    Args:
        bits: (H, W).
        counted: (H, W), which pixels the percentiles are of; None for all.
    """
    codes, counts, index = _different_values(bits)
    if counted is not None and counted.any():
        n_counted = np.bincount(bits[counted], minlength=int(codes[-1]) + 1)[codes]
    else:
        n_counted = counts
    shades = _between_percentiles(codes.astype(np.float64), n_counted, n_counted > 0)
    return _look_up_pixels(bits, codes, shades.astype(np.float32), index)


def _between_percentiles(values: FloatArray, counts: Counts, counted: Mask) -> FloatArray:
    """Map the percentiles of the values that count to 0 and 1; one grey is black."""
    low, high = _percentiles(values[counted], counts[counted])
    if not high > low:
        return np.zeros(values.shape)
    return np.clip((values - low) / (high - low), 0, 1)


def _percentiles(values: FloatArray, counts: Counts) -> tuple[float, float]:
    """Return the values below which .5 and 99.5 percent of the pixels lie.

    Where both are the same, as in an image that is nearly all background, the extremes.
    """
    order = np.argsort(values)
    below = np.cumsum(counts[order])
    low, high = (
        float(values[order][np.searchsorted(below, below[-1] * percent / 100)])
        for percent in PERCENTILES
    )
    return (low, high) if high > low else (float(values.min()), float(values.max()))


def _stretch(values: FloatArray, slope: float) -> FloatArray:
    """Map the darkest value to 0 and the brightest to 1; of rescaling the sign counts."""
    darkest, brightest = values.min(), values.max()
    if not brightest > darkest:
        return np.zeros(values.shape)
    shades = (values - darkest) / (brightest - darkest)
    return 1 - shades if slope < 0 else shades
