"""What tests of pretrained weights share."""

from pathlib import Path

import pytest

from src.retinanet.encoders.weight_sources import HubFile, WebFile


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keep the tests off the network: every source notes its address and fails."""
    tried: list[str] = []

    def fail(source: HubFile | WebFile, folder: Path, stem: str) -> Path:
        tried.append(source.url)
        raise OSError("no network\nin this test")

    monkeypatch.setattr(HubFile, "download", fail)
    monkeypatch.setattr(WebFile, "download", fail)
    return tried
