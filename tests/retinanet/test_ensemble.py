import numpy as np
import pytest
import torch

from src.retinanet.anchors import count_anchors, make_anchors
from src.retinanet.boxes import decode_boxes
from src.retinanet.candidates import find_candidates
from src.retinanet.ensemble import Ensemble, low_percentile, turn_back, turn_back_deltas
from src.retinanet.model import RetinaNet
from src.retinanet.settings import AnchorShapes, CandidateLimits
from src.structures import RawOutputs
from tests.retinanet.test_model import TinyEncoder

IMAGES = torch.rand(2, 1, 192, 224, generator=torch.Generator().manual_seed(0))


def member(seed, *, levels=(3, 4, 5), **options):
    """A tiny net whose outputs are not constant: its last layers do not start at 0."""
    torch.manual_seed(seed)
    model = RetinaNet(TinyEncoder(), width=8, head_depth=1, levels=levels, **options).eval()
    torch.nn.init.normal_(model.class_head.output.weight, std=0.05)
    torch.nn.init.normal_(model.box_head.output.weight, std=0.5)
    assert model.class_head.output.bias is not None
    torch.nn.init.constant_(model.class_head.output.bias, -3.7)
    return model


def mirror_outputs(outputs, size, levels):
    return RawOutputs(
        turn_back(outputs.scores, outputs.scores, size, levels),
        turn_back_deltas(outputs.deltas, outputs.deltas, size, levels),
        outputs.class_log_probs,
    )


@torch.no_grad()
def test_one_member_gives_exactly_its_own_outputs():
    alone = member(0)
    for rule in ("percentile", "mean"):
        for ours, its in zip(Ensemble([alone], size_rule=rule)(IMAGES), alone(IMAGES), strict=True):
            assert torch.equal(ours, its)


@torch.no_grad()
def test_scores_shifts_and_classes_are_means():
    members = [member(seed) for seed in range(3)]
    outputs = [m(IMAGES) for m in members]
    combined = Ensemble(members)(IMAGES)
    torch.testing.assert_close(combined.scores, sum(o.scores for o in outputs) / 3)
    torch.testing.assert_close(
        combined.deltas[..., :2], sum(o.deltas[..., :2] for o in outputs) / 3
    )
    torch.testing.assert_close(
        combined.class_log_probs.exp(), sum(o.class_log_probs.exp() for o in outputs) / 3
    )


@pytest.mark.parametrize("k", [0.0, 0.9, 1.6])
def test_low_percentile_equals_numpy(k):
    sizes = torch.randn(7, 5, 2, generator=torch.Generator().manual_seed(1))
    low, high = np.percentile(sizes, [20, 80], axis=0)
    np.testing.assert_allclose(low_percentile(sizes, k), low + k * (low - high), atol=1e-6)


@torch.no_grad()
def test_percentiles_of_candidates_alone_change_no_detection():
    members = [member(seed) for seed in range(4)]
    outputs = [m(IMAGES) for m in members]
    combined = Ensemble(members, size_rule="percentile", k=0.9)(IMAGES)
    everywhere = torch.cat(
        [
            combined.deltas[..., :2],
            low_percentile(torch.stack([o.deltas[..., 2:] for o in outputs]), 0.9),
        ],
        dim=-1,
    )
    assert not torch.equal(combined.deltas, everywhere)  # it did save work
    anchors, size = members[0].anchors(IMAGES), (192, 224)
    full = find_candidates(combined._replace(deltas=everywhere), anchors, size)
    for ours, expected in zip(find_candidates(combined, anchors, size), full, strict=True):
        assert len(expected.scores) > 5
        assert torch.equal(ours.scores, expected.scores)
        torch.testing.assert_close(ours.boxes_xyxy, expected.boxes_xyxy)


@torch.no_grad()
def test_a_weight_of_zero_leaves_a_member_out_of_the_means():
    members = [member(0), member(1)]
    combined = Ensemble(members, weights=[1, 0])(IMAGES)
    for ours, its in zip(combined, members[0](IMAGES), strict=True):
        torch.testing.assert_close(ours, its)


def test_mirroring_outputs_mirrors_the_boxes():
    model = member(0)
    anchors = model.anchors(IMAGES)
    outputs = RawOutputs(
        torch.zeros(1, len(anchors)), torch.zeros(1, len(anchors), 4), torch.zeros(1, 3)
    )
    chosen = 500
    outputs.scores[0, chosen] = 0.9
    outputs.deltas[0, chosen] = torch.tensor([1.0, 0.5, -0.3, 0.4])
    (before,) = find_candidates(outputs, anchors, (192, 224))
    (after,) = find_candidates(
        mirror_outputs(outputs, (192, 224), model.levels), anchors, (192, 224)
    )
    x1, y1, x2, y2 = before.boxes_xyxy[0].tolist()
    assert after.boxes_xyxy[0].tolist() == pytest.approx([224 - x2, y1, 224 - x1, y2], abs=1e-3)


@pytest.mark.parametrize(
    ("side", "last"), [(192, 6), (224, 5), (256, 7), (320, 6), (448, 6), (512, 7)]
)
def test_boxes_are_turned_back_on_the_levels_whose_stride_divides_the_width(side, last):
    size, levels = (side, side), (3, 4, 5, 6, 7)
    anchors = make_anchors(size, levels)
    n_mirrored = sum(count_anchors(size, level) for level in levels if level <= last)
    mirrored, plain = torch.randn(2, len(anchors), 4, generator=torch.Generator().manual_seed(3))
    turned = turn_back_deltas(mirrored[None], plain[None], size, levels)[0]
    assert torch.equal(turned[n_mirrored:], plain[n_mirrored:])
    x1, y1, x2, y2 = decode_boxes(mirrored, anchors)[:n_mirrored].unbind(-1)
    expected = torch.stack([y1, y2, side - x2, side - x1], dim=-1)  # y does not change at all
    found = decode_boxes(turned, anchors)[:n_mirrored, [1, 3, 0, 2]]
    pairs = zip(sorted(found.tolist()), sorted(expected.tolist()), strict=True)
    assert max(abs(a - b) for pair in pairs for a, b in zip(*pair, strict=True)) < 0.01


@torch.no_grad()
def test_hflip_leaves_levels_without_mirror_images_as_they_are():
    one = member(0, levels=(5, 6, 7))
    plain, combined = one(IMAGES), Ensemble([one], hflip=True)(IMAGES)
    n_mirrored = count_anchors((192, 224), 5)
    for name in ("scores", "deltas"):
        ours, its = getattr(combined, name), getattr(plain, name)
        assert not torch.equal(ours[:, :n_mirrored], its[:, :n_mirrored])
        assert torch.equal(ours[:, n_mirrored:], its[:, n_mirrored:])


def test_mirroring_twice_changes_nothing():
    model = member(2)
    with torch.no_grad():
        outputs = model(IMAGES)
    size = (192, 224)
    twice = mirror_outputs(mirror_outputs(outputs, size, model.levels), size, model.levels)
    for ours, its in zip(twice, outputs, strict=True):
        assert torch.equal(ours, its)


@torch.no_grad()
def test_hflip_makes_the_ensemble_blind_to_mirroring():
    ensemble = Ensemble([member(0), member(1)], hflip=True)
    mirrored = mirror_outputs(ensemble(IMAGES.flip(-1)), (192, 224), (3, 4, 5))
    for ours, its in zip(mirrored, ensemble(IMAGES), strict=True):
        torch.testing.assert_close(ours, its, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("weights", [[1.0], [0.0, 0.0], [2.0, -1.0]])
def test_weights_that_do_not_fit_are_refused(weights):
    with pytest.raises(ValueError, match="members need as many positive weights"):
        Ensemble([member(0), member(1)], weights=weights)


@pytest.mark.parametrize(
    "change",
    [
        {"anchor_shapes": AnchorShapes(ratios=(0.5, 1.0, 3.0))},
        {"limits": CandidateLimits(min_score=0.1)},
    ],
)
def test_networks_of_other_anchors_or_limits_are_no_ensemble(change):
    with pytest.raises(ValueError, match="same levels and anchors"):
        Ensemble([member(0), member(1, **change)])


@torch.no_grad()
def test_mirroring_follows_the_number_of_anchors():
    one = member(0, anchor_shapes=AnchorShapes(ratios=(1.0, 2.0), scales=(1.0,)))
    outputs, mirrored = one(IMAGES), one(IMAGES.flip(-1))
    back = mirror_outputs(mirror_outputs(mirrored, (192, 224), one.levels), (192, 224), one.levels)
    torch.testing.assert_close(back.deltas, mirrored.deltas)
    symmetric = (IMAGES + IMAGES.flip(-1)) / 2
    combined = Ensemble([one], hflip=True)(symmetric)
    expected = one(symmetric)
    turned = mirror_outputs(expected, (192, 224), one.levels)
    torch.testing.assert_close(combined.scores, (expected.scores + turned.scores) / 2)
    assert outputs.scores.shape[1] == len(one.anchors(IMAGES))
