"""What passes between the rooms: Target and Batch in, Detections and Losses out, shared constants.

Can be imported without PyTorch: command lines do not wait for it, and scoring does not need it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

CLASS_NAMES = ("No Lung Opacity / Not Normal", "Normal", "Lung Opacity")  # the original's order
NOT_NORMAL, NORMAL, OPACITY = range(len(CLASS_NAMES))
UNKNOWN_CATEGORY = -1  # of an image without label
N_FOLDS = 4  # paper, section 5; folds.csv may say otherwise
MAX_FOLDS = 20
WHITE = 255  # of images of 8 bits
BOX_LOSS_WEIGHT = 1.0  # of the boxes' regression in the sum of losses; the original release
GLOBAL_LOSS_WEIGHT = 0.1  # of the whole-image classification; the original release
PAPER_LEVELS = (2, 3, 4, 5, 6, 7)  # of the pyramid, P2 to P7; paper, section 3
ENCODER_STRIDE = 32  # of C5: the sides of the network input are multiples of it
MIN_GLOBAL_MAP = 6  # C5 must be this large: max pool 2, then a 3x3 convolution without padding
MIN_IMG_SIZE = MIN_GLOBAL_MAP * ENCODER_STRIDE  # pixels
MAX_CANDIDATES = 1000  # for an image; an untrained net would keep every anchor

Precision = Literal["fp32", "bf16", "fp16"]  # of convolutions and products
# How stored values become grey; plain 8-bit is left alone by both:
#   viewer: as a DICOM viewer shows the file: LUTs, window, padding, else percentiles
#   range: from the darkest to the brightest pixel
Grey = Literal["viewer", "range"]
# How an image that is no square becomes one:
#   squeeze: each side is shrunk by itself; the original's way
#   pad: its sides keep their ratio, and what is missing of the square is black
Fit = Literal["squeeze", "pad"]


@dataclass(frozen=True, kw_only=True)
class ShownArea:
    """What the network input shows of an image: an area around its middle, squeezed into a square.

    Attributes:
        source_crop: side of a square, pixels of the image's file; None shows the whole image.
        fit: how the whole image becomes a square; a `source_crop` is one.
    """

    source_crop: int | None = None
    fit: Fit = "squeeze"

    def size(self, file_size: tuple[int, int]) -> tuple[int, int]:
        """Return height and width of the area; where the image is smaller, it is black.

        Args:
            file_size: height and width of the image in its file, pixels.
        """
        if self.source_crop is not None:
            return self.source_crop, self.source_crop
        if self.fit == "pad":
            return max(file_size), max(file_size)
        return file_size


WHOLE = ShownArea()


@dataclass(frozen=True, eq=False)
class Target:
    """What is known of one image.

    Attributes:
        boxes_xyxy: (M, 4) float32, pixels of the network input; M may be 0.
        category: the image's class, an index into `CLASS_NAMES`, -1 where unknown.
        group_id: the images of one patient share it; "" where the image is alone.
    """

    boxes_xyxy: Tensor
    category: int
    group_id: str = ""

    def __reduce__(self) -> tuple[Any, ...]:
        """Go from one process to another by value.

        PyTorch would send the tensor as an open file in shared memory, which takes longer than
        making the sample.
        """
        return _target_of, (self.boxes_xyxy.cpu().numpy(), self.category, self.group_id)


def _target_of(boxes_xyxy: NDArray[np.float32], category: int, group_id: str) -> Target:
    import torch

    return Target(torch.from_numpy(boxes_xyxy), category, group_id)


@dataclass(frozen=True, eq=False)
class Batch:
    """Images that go through the network together.

    Attributes:
        images: (B, 1, H, W), grey: float32 in [0, 1], or uint8 that stands for value / 255, a
            quarter of the bytes on the way to the device.
        targets: one for each image.
        ids: the images' patientIds.
        file_sizes: height and width of each image in its file, pixels.
    """

    images: Tensor
    targets: tuple[Target, ...]
    ids: tuple[str, ...]
    file_sizes: tuple[tuple[int, int], ...]

    @property
    def image_size(self) -> tuple[int, int]:
        """Return height and width of the images, pixels."""
        return self.images.shape[-2], self.images.shape[-1]

    def to(self, device: torch.device) -> Batch:
        """Copy the images to `device` and make them float32 there; targets stay on the host."""
        return replace(self, images=images_as_float(self.images.to(device, non_blocking=True)))

    def pin_memory(self) -> Batch:
        """Move the images to page-locked memory; the data loader calls this when it feeds a GPU."""
        return replace(self, images=self.images.pin_memory())


def images_as_float(images: Tensor) -> Tensor:
    """Return grey values in [0, 1]: float32 as it is, uint8 divided by 255.

    The numbers are those of numpy's float32 division, on every device. The divisor is a tensor
    there, for CUDA multiplies by the reciprocal of a plain number, which is another number.
    """
    import torch

    if images.dtype != torch.uint8:
        return images
    return images.float() / torch.full((1,), WHITE, dtype=torch.float32, device=images.device)


class RawOutputs(NamedTuple):
    """What the network says, before any decoding.

    Attributes:
        scores: (B, A) float32 probability of an opacity at each anchor.
        deltas: (B, A, 4) float32 dx, dy, dw, dh.
        class_log_probs: (B, 3) float32, log-probabilities of the image's classes.
    """

    scores: Tensor
    deltas: Tensor
    class_log_probs: Tensor


@dataclass(frozen=True, eq=False)
class Detections:
    """What was found in one image.

    Attributes:
        boxes_xyxy: (N, 4) float32, pixels of the network input, inside the image.
        scores: (N,) float32 in [0, 1], descending.
        class_probs: (3,) float32, probabilities of the image's classes.
    """

    boxes_xyxy: Tensor
    scores: Tensor
    class_probs: Tensor


@dataclass(frozen=True, eq=False)
class Losses:
    """The parts of the loss, each a scalar: the mean over the batch's images; and their weights.

    The history, TensorBoard, the progress bar and the plots name the parts as they are named here.
    `retinanet.losses` computes them.
    """

    classification: Tensor = field(metadata={"short_name": "cls"})
    regression: Tensor = field(metadata={"short_name": "reg"})
    global_classification: Tensor = field(metadata={"short_name": "glob"})
    box_weight: float = field(default=BOX_LOSS_WEIGHT, kw_only=True)
    global_weight: float = field(default=GLOBAL_LOSS_WEIGHT, kw_only=True)

    def total(self) -> Tensor:
        """Return the sum that is minimised: classification + 1 x regression + 0.1 x global."""
        return (
            self.classification
            + self.box_weight * self.regression
            + self.global_weight * self.global_classification
        )

    def parts(self) -> list[Tensor]:
        """Return the parts in the order in which `LOSS_NAMES` names them, after the sum."""
        return [getattr(self, name) for name in PART_NAMES]


PART_NAMES, PART_SHORT_NAMES = zip(
    *((part.name, part.metadata["short_name"]) for part in fields(Losses) if part.metadata),
    strict=True,
)
LOSS_NAMES = ("loss", *PART_NAMES)
SHORT_LOSS_NAMES = ("loss", *PART_SHORT_NAMES)
