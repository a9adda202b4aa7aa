import pytest
import torch
from torch import nn

from src.onnx_export.padded import PaddedDetector
from src.retinanet.anchors import make_anchors
from src.retinanet.candidates import find_candidates, suppress
from src.retinanet.settings import CandidateLimits
from src.structures import MAX_CANDIDATES, RawOutputs

SIZE = (128, 128)
ANCHORS = make_anchors(SIZE, (3,))
IMAGES = torch.zeros(3, 1, *SIZE)


class Given(nn.Module):
    """Says what it was given, whatever the images show."""

    def __init__(self, outputs):
        super().__init__()
        self.outputs = outputs

    def forward(self, _):
        return self.outputs


def outputs():
    """Three images: of many candidates, of few, and of none; no two scores are equal."""
    generator = torch.Generator().manual_seed(0)
    ranks = [torch.randperm(len(ANCHORS), generator=generator) for _ in range(3)]
    scores = torch.stack(ranks) / len(ANCHORS)
    scores = torch.stack([scores[0] * 0.8, scores[1].pow(9) * 0.1, scores[2] * 0.02])
    deltas = torch.randn(3, len(ANCHORS), 4, generator=generator)
    log_probs = torch.randn(3, 3, generator=generator).log_softmax(dim=1)
    return RawOutputs(scores, deltas, log_probs)


@pytest.mark.parametrize("nms_iou", [None, 0.05, 0.5])
@pytest.mark.parametrize("max_boxes", [MAX_CANDIDATES, 7])
@pytest.mark.parametrize(
    "limits",
    [
        CandidateLimits(),
        CandidateLimits(min_score=0.015, min_share_of_top=0.1),
        CandidateLimits(voting_iou=0.5),
    ],
)
def test_padded_detector_equals_candidates_and_suppression(nms_iou, max_boxes, limits):
    raw = outputs()
    expected = find_candidates(raw, ANCHORS, SIZE, limits)
    counts = [len(image.scores) for image in expected]
    assert counts[0] == MAX_CANDIDATES > counts[1] > 7
    assert (counts[2] == 0) == (limits.min_score == 0.025)
    if nms_iou is not None:
        expected = suppress(expected, nms_iou)
    detector = PaddedDetector(
        Given(raw), ANCHORS, SIZE, nms_iou=nms_iou, max_boxes=max_boxes, limits=limits
    )
    found = detector(IMAGES)
    assert found.scores.shape == (3, max_boxes)
    for i, image in enumerate(expected):
        n = min(len(image.scores), max_boxes)
        assert torch.equal(found.scores[i, :n], image.scores[:n])
        torch.testing.assert_close(found.boxes_xyxy[i, :n], image.boxes_xyxy[:n])
        assert torch.equal(found.class_probs[i], image.class_probs)
        assert not found.scores[i, n:].any() and not found.boxes_xyxy[i, n:].any()


def test_padded_detector_shows_its_steps():
    raw = outputs()
    found = PaddedDetector(Given(raw), ANCHORS, SIZE, nms_iou=0.05)(IMAGES)
    assert torch.equal(found.anchor_scores, raw.scores)
    assert torch.equal(found.anchor_deltas, raw.deltas)
    assert found.candidate_scores.count_nonzero() > found.scores.count_nonzero() > 0
