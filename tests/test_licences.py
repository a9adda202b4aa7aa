"""No licence of what requirements.txt installs asks more of its users than this project's own."""

import re
from importlib.metadata import PackageNotFoundError, distribution

import pytest
from packaging.requirements import Requirement

from tests.paths import ROOT

COPYLEFT = re.compile(r"\b(AGPL|GPL)|Affero|GNU General Public|SSPL|Commons Clause", re.I)
WEAK_COPYLEFT = re.compile(r"\bLGPL|Lesser General Public", re.I)

# Packages that name a copyleft licence and are taken all the same, and why; none today. (The wheel
# of opencv-python-headless, Apache-2.0, carries FFmpeg under the LGPL as libraries of their own.)
JUDGED: dict[str, str] = {}
# Packages whose metadata name no licence, and which it is.
UNNAMED = {"cuda-toolkit": "NVIDIA's own; PyTorch's wheels for CUDA need it"}


def required_names():
    """The packages of requirements.txt, and all that they require here."""
    lines = [line.split("#")[0].strip() for line in (ROOT / "requirements.txt").open()]
    waiting = [Requirement(line) for line in lines if line]
    names, seen = set(), set()
    while waiting:
        requirement = waiting.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        try:
            requires = distribution(requirement.name).requires or []
        except PackageNotFoundError:  # what is missing here is not tested here
            continue
        names.add(re.sub(r"[-_.]+", "-", requirement.name).lower())
        waiting += [
            needed for needed in map(Requirement, requires) if _applies(needed, requirement.extras)
        ]
    return sorted(names)


def _applies(requirement, extras):
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


def licences_of(name):
    """What a package's metadata say of its licence; long texts of a licence by their first line."""
    metadata = distribution(name).metadata
    named = metadata.get_all("Classifier", [])
    texts = [text.removeprefix("License :: ") for text in named if text.startswith("License ::")]
    for field in ("License-Expression", "License"):
        texts += [
            text.strip().splitlines()[0] for text in metadata.get_all(field, []) if text.strip()
        ]
    return [text for text in texts if text not in ("UNKNOWN", "OSI Approved")]


def refused(licences):
    return [text for text in licences if COPYLEFT.search(text) or WEAK_COPYLEFT.search(text)]


@pytest.mark.parametrize("name", required_names())
def test_a_required_package_has_a_licence_without_copyleft(name):
    licences = licences_of(name)
    assert licences or name in UNNAMED, f"{name}: its metadata name no licence; look, and note it"
    assert not refused(licences) or name in JUDGED, f"{name}: {refused(licences)}"


def test_the_closure_is_more_than_the_list():
    names = required_names()
    assert {"torch", "imagecodecs", "pydicom", "pillow", "filelock"} <= set(names)


@pytest.mark.parametrize(
    ("licence", "is_refused"),
    [
        ("MIT", False),
        ("OSI Approved :: GNU General Public License v3 (GPLv3)", True),
        ("GPL V3.0", True),
        ("AGPL-3.0-only", True),
        ("LGPL-2.1-or-later", True),
        ("BSD-3-Clause AND MIT", False),
    ],
)
def test_copyleft_is_known_by_its_names(licence, is_refused):
    assert bool(refused([licence])) == is_refused
