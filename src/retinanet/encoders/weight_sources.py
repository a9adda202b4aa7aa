"""Files of pretrained weights on the Hugging Face hub and on web servers.

Those of our own encoders are ImageNet classifiers. The release took them from a server that is
often dead. The Hugging Face hub keeps the same networks under the same parameter names, so nothing
needs renaming: SE-ResNeXt, Xception and PNASNet are timm's copies of the release's files,
Inception-ResNet-v2 and DPN-92 its conversions of the same TensorFlow and MXNet checkpoints, the
ResNets torchvision's first versions (IMAGENET1K_V1). An encoder's family names its files.
"""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from src.system.files import move_into_place, sha256_of

TIMM_RELEASES = "https://github.com/rwightman/pytorch-image-models/releases/download"
OLD_SERVER = "http://data.lip6.fr/cadene/pretrainedmodels"


class WeightSource(Protocol):
    """A place that publishes weights."""

    @property
    def url(self) -> str:
        """The address for a browser."""

    @property
    def suffix(self) -> str:
        """The suffix to save them with."""

    def download(self, folder: Path, stem: str) -> Path:
        """Save them under the name `stem` in `folder`, checked, whole or not at all.

        Raises:
            OSError: the place cannot be reached or does not have them.
            RuntimeError: what arrived is not what was published.
        """


@dataclass(frozen=True)
class HubFile:
    """A file on the Hugging Face hub, which publishes its SHA-256."""

    repository: str
    filename: str = "model.safetensors"
    revision: str = "main"

    @property
    def url(self) -> str:
        """The address for a browser."""
        return f"https://huggingface.co/{self.repository}/resolve/{self.revision}/{self.filename}"

    @property
    def suffix(self) -> str:
        """The suffix to save it with."""
        return _suffix(self.filename)

    def download(self, folder: Path, stem: str) -> Path:
        """Save the file; see `WeightSource`."""
        # Takes a while to import, and nobody else needs it.
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
        from huggingface_hub.errors import EntryNotFoundError, HTTPError

        saved = folder / f"{stem}{self.suffix}"
        try:
            url = hf_hub_url(self.repository, self.filename, revision=self.revision)
            published = get_hf_file_metadata(url)
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                path = Path(
                    hf_hub_download(
                        self.repository,
                        self.filename,
                        revision=published.commit_hash,
                        local_dir=scratch,
                    )
                )
                _check_sha256(path, published.etag or "")
                move_into_place(path, saved)
        except (HTTPError, EntryNotFoundError) as error:  # its HTTP library has its own errors
            raise OSError(str(error) or type(error).__name__) from error
        return saved


@dataclass(frozen=True)
class WebFile:
    """A file on a web server, with the first digits of its SHA-256 at the end of its name."""

    url: str

    @property
    def hash_prefix(self) -> str | None:
        """The digits in the name; None if there are none."""
        match = re.search(r"-([0-9a-f]{8,64})\.", self.url.rpartition("/")[2])
        return match[1] if match else None

    @property
    def suffix(self) -> str:
        """The suffix to save it with."""
        return _suffix(self.url)

    def download(self, folder: Path, stem: str) -> Path:
        """Save the file; see `WeightSource`."""
        import torch  # experiments are checked against the named weights without it

        saved = folder / f"{stem}{self.suffix}"
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            path = Path(scratch, saved.name)
            torch.hub.download_url_to_file(self.url, str(path), hash_prefix=self.hash_prefix)
            move_into_place(path, saved)
        return saved


def timm_release(file: str) -> WebFile:
    """Return a file of timm's releases on GitHub."""
    return WebFile(f"{TIMM_RELEASES}/{file}")


def old_server(file: str) -> WebFile:
    """Return a file of pretrainedmodels' server, where the release took its weights from."""
    return WebFile(f"{OLD_SERVER}/{file}")


def _suffix(filename: str) -> str:
    return ".safetensors" if filename.endswith(".safetensors") else ".pth"


def _check_sha256(path: Path, published: str) -> None:
    """Raise RuntimeError if the file differs from the SHA-256 that the hub gives large files."""
    if not re.fullmatch("[0-9a-f]{64}", published):
        return
    digest = sha256_of(path)
    if digest != published:
        raise RuntimeError(f"its SHA-256 is {digest}, the hub published {published}")
