"""Where the tests find what is not part of the project, and how they skip without it."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


def shared(name: str) -> Path:
    """Return a path in ../shared, or skip the test that needs it."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs {path.relative_to(ROOT.parent)} beside the project")
    return path
