"""The box head runs only where somebody looks: nothing that is looked at may change."""

import copy

import pytest
import torch

from src.retinanet.candidates import find_candidates
from src.retinanet.ensemble import Ensemble
from src.retinanet.losses import detection_losses, match_anchors
from src.retinanet.settings import PAPER_LIMITS
from src.structures import Target
from tests.retinanet.test_ensemble import IMAGES, member

LEVELS = 3  # of `member`: P3, P4, P5
SMALL_BOX, LARGE_BOX = (60.0, 60.0, 92.0, 92.0), (20.0, 20.0, 190.0, 180.0)  # P3 alone, P5 alone
TARGETS = {
    "no boxes": ((), ()),
    "one image": ((), (LARGE_BOX,)),
    "two levels": ((SMALL_BOX, LARGE_BOX), ()),
    "all images": ((SMALL_BOX,), (SMALL_BOX,)),
}


def make_targets(boxes):
    return [Target(torch.tensor(b, dtype=torch.float32).reshape(-1, 4), 2) for b in boxes]


def backward(model, targets, **options):
    """Losses and every parameter's gradient of one training step."""
    model = copy.deepcopy(model).train()
    anchors = model.anchors(IMAGES)
    torch.manual_seed(0)  # of dropout
    losses = detection_losses(model(IMAGES, **options), anchors, targets)
    losses.total().backward()
    return losses, {name: p.grad for name, p in model.named_parameters()}


def needed_levels(model, targets):
    matches = match_anchors(model.anchors(IMAGES), [target.boxes_xyxy for target in targets])
    return model.by_level(matches.positive, IMAGES)


def count_box_head(model):
    """A list that grows by the positions of every map that the box head sees."""
    seen = []
    model.box_head.register_forward_hook(
        lambda _, maps, __: seen.append(maps[0].shape[0] * maps[0][0, 0].numel())
    )
    return seen


@pytest.mark.parametrize("boxes", TARGETS.values(), ids=TARGETS)
def test_training_on_needed_levels_gives_the_losses_and_gradients_of_the_full_pass(boxes):
    model, targets = member(0), make_targets(boxes)
    full, full_gradients = backward(model, targets)
    ours, gradients = backward(model, targets, needed=needed_levels(model, targets))
    torch.testing.assert_close(vars(ours), vars(full))
    for name, expected in full_gradients.items():
        assert gradients[name] is not None, name
        torch.testing.assert_close(gradients[name], expected, msg=name)


def test_the_box_head_sees_only_needed_levels():
    model, targets = member(0), make_targets(TARGETS["one image"])
    needed = needed_levels(model, targets)
    assert needed.tolist() == [[False] * LEVELS, [False, False, True]]
    seen = count_box_head(model)
    model.train()(IMAGES, needed=needed)
    assert seen == [6 * 7]  # P5 of one image of 192 x 224


@torch.no_grad()
def test_the_box_head_meets_few_batch_sizes():
    model = member(0).eval()
    images = torch.rand(6, *IMAGES.shape[1:], generator=torch.Generator().manual_seed(0))
    full = model(images).deltas
    sizes: list[int] = []
    model.box_head.register_forward_hook(lambda _, maps, __: sizes.append(len(maps[0])))
    for n_needing in range(7):
        needed = torch.zeros(6, LEVELS, dtype=torch.bool)
        needed[:n_needing, -1] = True
        n_anchors = 9 * 6 * 7  # of P5
        deltas = model(images, needed=needed).deltas
        torch.testing.assert_close(
            deltas[:n_needing, -n_anchors:], full[:n_needing, -n_anchors:], msg=str(n_needing)
        )
    assert sizes == [1, 2, 4, 4, 6, 6]


def test_a_batch_without_positives_still_gives_the_box_head_a_gradient():
    model, targets = member(0), make_targets(TARGETS["no boxes"])
    needed = needed_levels(model, targets)
    _, gradients = backward(model, targets, needed=needed)
    assert not needed.any()
    assert all((gradient == 0).all() for name, gradient in gradients.items() if "box" in name)
    seen = count_box_head(model)
    model.train()(IMAGES, needed=needed)
    assert seen == [6 * 7]


@torch.no_grad()
@pytest.mark.parametrize("bias", [-3.7, -5.0, -9.0], ids=["everywhere", "some", "none"])
def test_inference_on_promising_levels_finds_the_same_boxes(bias):
    model = member(0)
    torch.nn.init.constant_(model.class_head.output.bias, bias)
    anchors, size = model.anchors(IMAGES), (192, 224)
    full = find_candidates(model(IMAGES), anchors, size)
    seen = count_box_head(model)
    ours = find_candidates(model(IMAGES, min_score=PAPER_LIMITS.min_score), anchors, size)
    n_full = 2 * sum((192 // s) * (224 // s) for s in (8, 16, 32))
    assert sum(seen) == n_full if bias == -3.7 else sum(seen) < n_full
    assert sum(len(found.scores) for found in full) == 0 if bias == -9 else True
    for found, expected in zip(ours, full, strict=True):
        assert torch.equal(found.scores, expected.scores)
        torch.testing.assert_close(found.boxes_xyxy, expected.boxes_xyxy)


@torch.no_grad()
def test_validation_has_boxes_where_the_loss_or_the_candidates_need_them():
    model, targets = member(0), make_targets(TARGETS["one image"])
    torch.nn.init.constant_(model.class_head.output.bias, -5.0)
    needed = needed_levels(model, targets)
    outputs = model(IMAGES, needed=needed, min_score=PAPER_LIMITS.min_score)
    full = model(IMAGES)
    looked_at = (full.scores > PAPER_LIMITS.min_score) | match_anchors(
        model.anchors(IMAGES), [target.boxes_xyxy for target in targets]
    ).positive
    torch.testing.assert_close(outputs.deltas[looked_at], full.deltas[looked_at])
    assert (outputs.deltas[~looked_at] == 0).any()


@torch.no_grad()
@pytest.mark.parametrize("hflip", [False, True])
def test_an_ensemble_on_promising_levels_finds_the_same_boxes(hflip):
    members = [member(seed) for seed in range(3)]
    for one in members:  # a level counts by the mean of the scores, whatever a member says
        torch.nn.init.constant_(one.class_head.output.bias, -4.0)
    ensemble = Ensemble(members, weights=[1, 2, 3], hflip=hflip)
    anchors, size = ensemble.anchors(IMAGES), (192, 224)
    full = find_candidates(ensemble(IMAGES), anchors, size)
    seen = count_box_head(members[0])
    ours = find_candidates(ensemble(IMAGES, min_score=PAPER_LIMITS.min_score), anchors, size)
    assert 0 < sum(seen) < 2 * (1 + hflip) * sum((192 // s) * (224 // s) for s in (8, 16, 32))
    for found, expected in zip(ours, full, strict=True):
        assert len(found.scores)
        assert torch.equal(found.scores, expected.scores)
        torch.testing.assert_close(found.boxes_xyxy, expected.boxes_xyxy)
