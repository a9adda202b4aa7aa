"""The places that keep the encoders' pretrained weights.

All are ImageNet classifiers. The release took them from a server that is often dead. The Hugging
Face hub keeps the same networks under the same parameter names, so nothing needs renaming:
SE-ResNeXt, Xception and PNASNet are timm's copies of the release's files, Inception-ResNet-v2 and
DPN-92 its conversions of the same TensorFlow and MXNet checkpoints, the ResNets torchvision's
first versions (IMAGENET1K_V1).
"""

import hashlib
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from src.system.files import move_into_place


@dataclass(frozen=True)
class HubFile:
    """A file on the Hugging Face hub, which publishes its SHA-256."""

    repository: str
    filename: str = "model.safetensors"

    @property
    def url(self) -> str:
        """The address for a browser."""
        return f"https://huggingface.co/{self.repository}/resolve/main/{self.filename}"

    @property
    def suffix(self) -> str:
        """The suffix to save it with."""
        return _suffix(self.filename)

    def download(self, folder: Path, stem: str) -> Path:
        """Save the file under the name `stem` in `folder`, checked, whole or not at all.

        Raises:
            OSError: the hub cannot be reached or does not have the file.
            RuntimeError: what arrived is not what the hub published.
        """
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
        from huggingface_hub.errors import EntryNotFoundError, HTTPError

        saved = folder / f"{stem}{self.suffix}"
        try:
            published = get_hf_file_metadata(hf_hub_url(self.repository, self.filename))
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
        """Save the file under the name `stem` in `folder`; as `HubFile.download`."""
        saved = folder / f"{stem}{self.suffix}"
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            path = Path(scratch, saved.name)
            torch.hub.download_url_to_file(self.url, str(path), hash_prefix=self.hash_prefix)
            move_into_place(path, saved)
        return saved


def _suffix(filename: str) -> str:
    return ".safetensors" if filename.endswith(".safetensors") else ".pth"


def _check_sha256(path: Path, published: str) -> None:
    """Raise RuntimeError if the file differs from the SHA-256 that the hub gives large files."""
    if not re.fullmatch("[0-9a-f]{64}", published):
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != published:
        raise RuntimeError(f"its SHA-256 is {digest}, the hub published {published}")


TORCHVISION = "https://download.pytorch.org/models"
TIMM_RELEASES = "https://github.com/rwightman/pytorch-image-models/releases/download"
OLD_SERVER = "http://data.lip6.fr/cadene/pretrainedmodels"  # pretrainedmodels'

# In the order in which they are tried.
SOURCES: dict[str, tuple[HubFile | WebFile, ...]] = {
    "resnet18": (HubFile("timm/resnet18.tv_in1k"), WebFile(f"{TORCHVISION}/resnet18-f37072fd.pth")),
    "resnet34": (HubFile("timm/resnet34.tv_in1k"), WebFile(f"{TORCHVISION}/resnet34-b627a593.pth")),
    "resnet50": (HubFile("timm/resnet50.tv_in1k"), WebFile(f"{TORCHVISION}/resnet50-0676ba61.pth")),
    "resnet101": (
        HubFile("timm/resnet101.tv_in1k"),
        WebFile(f"{TORCHVISION}/resnet101-63fe2227.pth"),
    ),
    "resnet152": (
        HubFile("timm/resnet152.tv_in1k"),
        WebFile(f"{TORCHVISION}/resnet152-394f9c45.pth"),
    ),
    "se_resnext50": (
        HubFile("timm/legacy_seresnext50_32x4d.in1k"),
        WebFile(f"{TIMM_RELEASES}/v0.1-weights/legacy_se_resnext50_32x4d-f3651bad.pth"),
        WebFile(f"{OLD_SERVER}/se_resnext50_32x4d-a260b3a4.pth"),
    ),
    "se_resnext101": (
        HubFile("timm/legacy_seresnext101_32x4d.in1k"),
        WebFile(f"{TIMM_RELEASES}/v0.1-weights/legacy_se_resnext101_32x4d-37725eac.pth"),
        WebFile(f"{OLD_SERVER}/se_resnext101_32x4d-3b2fe3d8.pth"),
    ),
    "xception": (
        HubFile("timm/legacy_xception.tf_in1k"),
        WebFile(f"{TIMM_RELEASES}/v0.1-cadene/xception-43020ad28.pth"),
        WebFile(f"{OLD_SERVER}/xception-43020ad28.pth"),
    ),
    "inceptionresnetv2": (
        HubFile("timm/inception_resnet_v2.tf_in1k"),
        WebFile(f"{OLD_SERVER}/inceptionresnetv2-520b38e4.pth"),
    ),
    "nasnet_mobile": (  # timm has none; the first is the copy that pretrainedmodels' source names
        WebFile(
            "https://github.com/veronikayurchuk/pretrained-models.pytorch/releases/download/v1.0/"
            "nasnetmobile-7e03cead.pth.tar"
        ),
        WebFile(f"{OLD_SERVER}/nasnetamobile-7e03cead.pth"),
    ),
    "pnasnet5large": (
        HubFile("timm/pnasnet5large.tf_in1k"),
        WebFile(f"{TIMM_RELEASES}/v0.1-cadene/pnasnet5large-bf079911.pth"),
        WebFile(f"{OLD_SERVER}/pnasnet5large-bf079911.pth"),
    ),
    "dpn92": (
        HubFile("timm/dpn92.mx_in1k"),
        WebFile(f"{OLD_SERVER}/dpn92_extra-fda993c95.pth"),
    ),
}
