"""By what DICOM headers sort images."""

import pytest
from pydicom.dataset import Dataset

from src.radiographs.header_groups import HeaderGroups, age_band, header_groups


@pytest.mark.parametrize(
    ("age", "band"),
    [
        ("058Y", "40-59"), ("50", "40-59"), ("019Y", "0-19"), ("020y", "20-39"), ("80", "80+"),
        ("120Y", "80+"), ("018M", "0-19"), ("300M", "20-39"), ("010D", "0-19"), ("052W", "0-19"),
        ("0", "0-19"), ("155", ""), ("", ""), ("old", ""), ("-5", ""), ("58.5", ""), ("٥٠", ""),
    ],
)  # fmt: skip
def test_ages_fall_into_bands_of_20_years(age, band):
    assert age_band(age) == band


def dataset(**values):
    made = Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def test_a_header_sorts_its_image():
    header = dataset(
        ViewPosition="pa ", PatientSex="F", PatientAge="61", PixelSpacing=[0.1431, 0.2]
    )
    assert header_groups(header) == HeaderGroups("PA", "F", "60-79", "0.143")


def test_the_spacing_at_the_detector_stands_in():
    assert header_groups(dataset(ImagerPixelSpacing=[0.139, 0.139])).pixel_spacing == "0.139"
    header = dataset(ImagerPixelSpacing=[0.139, 0.139], PixelSpacing=[0.2, 0.2])
    assert header_groups(header).pixel_spacing == "0.200"


def test_a_header_that_says_nothing_or_nonsense_sorts_into_no_group():
    assert header_groups(Dataset()) == HeaderGroups()
    header = dataset(ViewPosition="", PatientSex="X" * 8 + "\n" + "X", PixelSpacing=[0, 0])
    assert header_groups(header) == HeaderGroups()
