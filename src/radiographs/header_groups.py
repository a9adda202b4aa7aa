"""By what a DICOM header sorts images: view, sex, age band, pixel spacing."""

from __future__ import annotations

import re
from typing import NamedTuple

from pydicom.dataset import Dataset

AGE = re.compile(r"0*(\d{1,3})([DWMY]?)", re.ASCII)
YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0, "": 1.0}  # "" in the challenge
OLDEST = 120  # years; the challenge's headers say up to 155
BAND = 20  # years
LAST_BAND = 80  # and older
MAX_TEXT = 16  # characters of a code string
GROUP_TAGS = ("ViewPosition", "PatientSex", "PatientAge", "PixelSpacing", "ImagerPixelSpacing")


class HeaderGroups(NamedTuple):
    """The groups that an image belongs to; "" where its file does not say, or says nonsense.

    Attributes:
        view: ViewPosition, such as AP or PA.
        sex: PatientSex.
        age_band: 20 years from PatientAge, such as 40-59.
        pixel_spacing: in mm, of rows, to a thousandth.
    """

    view: str = ""
    sex: str = ""
    age_band: str = ""
    pixel_spacing: str = ""


def header_groups(dataset: Dataset) -> HeaderGroups:
    """Read the groups of an image; nothing in a header makes it fail."""
    return HeaderGroups(
        view=_code(dataset, "ViewPosition"),
        sex=_code(dataset, "PatientSex"),
        age_band=age_band(_text(dataset, "PatientAge")),
        pixel_spacing=_spacing(dataset, "PixelSpacing") or _spacing(dataset, "ImagerPixelSpacing"),
    )


def age_band(age: str) -> str:
    """Return the 20 years that an age lies in, "" where it is none.

    Args:
        age: as DICOM writes it, "058Y" or "006M", or a plain number of years.
    """
    match = AGE.fullmatch(age.strip().upper())
    if match is None:
        return ""
    years = int(match[1]) * YEARS[match[2]]
    if years > OLDEST:
        return ""
    if years >= LAST_BAND:
        return f"{LAST_BAND}+"
    first = int(years) // BAND * BAND
    return f"{first}-{first + BAND - 1}"


def _code(dataset: Dataset, name: str) -> str:
    text = _text(dataset, name).strip().upper()
    return text if len(text) <= MAX_TEXT and text.isprintable() else ""


def _spacing(dataset: Dataset, name: str) -> str:
    try:
        spacing = float(_text(dataset, name).strip("[]").split(",")[0])
    except ValueError:
        return ""
    return f"{spacing:.3f}" if 0 < spacing < 100 else ""


def _text(dataset: Dataset, name: str) -> str:
    try:
        return str(dataset.get(name, "") or "")
    except Exception:  # a broken element makes pydicom raise nearly anything
        return ""
