"""Fused boxes as predictions: where they lie, what is taken from whom, which are weaker boxes."""

from dataclasses import replace

import numpy as np
import pytest

from src.experiments.runs import Run
from src.metric import iou
from src.prediction.fused_predictions import FUSED_EPOCH, fuse_predictions
from src.prediction.fused_submission import write_fused
from src.prediction.fusion_inputs import read_detections
from src.prediction.fusion_settings import choose_fusion
from src.prediction.outputs import describe_networks, prediction_strings
from src.prediction.postprocess import choose_boxes
from src.prediction.predictions import load_predictions, take_images, to_xywh
from src.retinanet.settings import DEFAULT_WEAK
from src.system.errors import InputError
from tests.made_predictions import ALL, make_predictions, random_predictions, with_weak_boxes
from tests.submission_files import write_rows

WBF = choose_fusion("wbf", {}, n_detectors=2)
SIZES = np.array([[700 + 10 * i, 1100] for i in range(8)])
TRUE, FAR = [20, 20, 80, 80], [120, 120, 160, 160]


@pytest.fixture
def read(tmp_path):
    """Return a function that saves predictions as files and reads them as inputs."""

    def call(*predictions):
        paths = [tmp_path / f"{i}.npz" for i in range(len(predictions))]
        for path, each in zip(paths, predictions, strict=True):
            each.save(path)
        return [read_detections(path, nms=None, shrink=None) for path in paths]

    return call


@pytest.fixture
def fuse(tmp_path, read):
    """Return a function that fuses predictions with equal weights."""

    def call(*predictions, fusion=WBF, weights=None, run=None):
        inputs = read(*predictions)
        weights = weights or [1.0] * len(inputs)
        return fuse_predictions(inputs, weights, fusion, folder=tmp_path, run=run)

    return call


def of_other_input(predictions, img_size, **shown):
    """The same images as a network with another input saw them, with boxes of its own."""
    other = random_predictions(9, img_size=img_size)
    made_by = replace(other.provenance, model="other", epoch=4, **shown)
    return replace(other, image_sizes=predictions.image_sizes, provenance=made_by)


@pytest.mark.parametrize(
    ("method", "flags"), [("nms", {}), ("soft-nms", {}), ("wbf", {}), ("vote", {"min_votes": 1})]
)
def test_fused_boxes_are_those_of_the_submission_in_pixels_of_the_first_input(
    tmp_path, read, method, flags
):
    first = replace(random_predictions(4), image_sizes=SIZES)
    inputs = read(first, of_other_input(first, 320, fit="pad"))
    fusion = choose_fusion(method, flags, n_detectors=2)
    size_of = inputs[0].sizes.get
    write_fused(tmp_path / "fused.csv", inputs, [2.0, 1.0], fusion, size_of=size_of)
    rows = (tmp_path / "fused.csv").read_text().splitlines()[1:]
    fused = fuse_predictions(inputs, [2.0, 1.0], fusion, folder=tmp_path)
    assert fused.img_size == 192
    strings = prediction_strings(fused, choose_boxes(fused, ALL))
    assert sum(map(bool, strings.values())) > 3
    assert [f"{patient},{text}" for patient, text in strings.items()] == rows


def test_scores_stay_on_the_scale_of_candidates(fuse):
    one = make_predictions(([TRUE], [(TRUE, 0.8), (FAR, 0.25)]))
    fused = fuse(one, one)
    assert fused.scores == pytest.approx([0.8, 0.25])
    np.testing.assert_allclose(fused.boxes_xyxy, one.boxes_xyxy, atol=1e-5)


def test_images_and_truth_are_the_first_predictions_and_probabilities_the_weighted_mean(
    tmp_path, read
):
    groups = np.array(["P1", "P1", *[""] * 6])
    first = replace(random_predictions(4), group_ids=groups)
    other = random_predictions(5)
    order = np.random.default_rng(0).permutation(8).tolist()
    submission = write_rows(tmp_path, *(f"{patient}," for patient in first.ids))
    mixed = take_images(other, order)
    inputs = [read_detections(submission, nms=None, shrink=None), *read(first, mixed)]
    fused = fuse_predictions(inputs, [5.0, 3.0, 1.0], WBF, folder=tmp_path)
    for name in ("ids", "group_ids", "image_sizes", "true_offsets", "true_boxes_xyxy"):
        np.testing.assert_array_equal(getattr(fused, name), getattr(first, name))
    expected = (3 * first.class_probs + other.class_probs) / 4
    np.testing.assert_allclose(fused.class_probs, expected, rtol=1e-6)


# Weaker boxes


def test_candidates_are_fused_alike_with_and_without_weaker_boxes(fuse):
    pair = [random_predictions(seed, n_images=30) for seed in (4, 5)]
    plain = fuse(*pair)
    known = fuse(*(with_weak_boxes(each, seed) for seed, each in enumerate(pair)))
    for name in ("offsets", "boxes_xyxy", "scores", "class_probs"):
        np.testing.assert_array_equal(getattr(known, name), getattr(plain, name))
    assert (plain.provenance.weak, len(plain.weak_scores)) == (None, 0)
    assert known.provenance.weak == DEFAULT_WEAK
    assert len(known.weak_scores) > 30


@pytest.mark.parametrize("method", ["nms", "soft-nms", "wbf"])
def test_weaker_boxes_lie_beside_the_fused_ones(fuse, method):
    pair = [with_weak_boxes(random_predictions(seed, n_images=30), seed) for seed in (4, 5)]
    fused = fuse(*pair, fusion=choose_fusion(method, {}, n_detectors=2))
    assert (fused.weak_scores > DEFAULT_WEAK.min_score).all()
    assert (np.diff(fused.weak_offsets) > 0).sum() > 20
    for image in range(30):
        weak = fused.weak_boxes_xyxy[slice(*fused.weak_offsets[image : image + 2].tolist())]
        boxes = to_xywh(np.concatenate([fused.boxes_xyxy[fused.candidates_of(image)], weak]))
        of_pairs = np.triu(iou(boxes[:, None], boxes), 1)[:, len(boxes) - len(weak) :]
        assert of_pairs.max(initial=0) <= DEFAULT_WEAK.max_iou


def test_an_image_keeps_so_many_weaker_boxes(fuse):
    grid = [[8 * x, 8 * y, 8 * x + 6, 8 * y + 6] for x in range(12) for y in range(12)]
    scores = np.linspace(0.02, 0.006, 144).astype(np.float32)
    plain = make_predictions(([], []), ([TRUE], [(FAR, 0.5)]))
    many = replace(
        plain,
        weak_offsets=np.array([0, 144, 144]),
        weak_boxes_xyxy=np.array(grid, np.float32),
        weak_scores=scores,
        provenance=replace(plain.provenance, weak=DEFAULT_WEAK),
    )
    fused = fuse(many, many, fusion=choose_fusion("nms", {}, n_detectors=2))
    assert fused.weak_offsets.tolist() == [0, 100, 100]
    np.testing.assert_allclose(fused.weak_scores, scores[:100], rtol=1e-6)


@pytest.mark.parametrize("flags", [{"skip_below": 0.1}, {"threshold": 0.1}])
def test_boxes_that_a_flag_cut_off_are_not_called_complete(fuse, flags):
    pair = [with_weak_boxes(random_predictions(seed), seed) for seed in (4, 5)]
    fused = fuse(*pair, fusion=choose_fusion("wbf", flags, n_detectors=2))
    assert (fused.provenance.weak, len(fused.weak_scores)) == (None, 0)


def test_a_submission_among_the_inputs_leaves_no_weaker_boxes(tmp_path, read):
    predictions = with_weak_boxes(random_predictions(4))
    submission = write_rows(tmp_path, *(f"{patient}," for patient in predictions.ids))
    inputs = [*read(predictions), read_detections(submission, nms=None, shrink=None)]
    assert fuse_predictions(inputs, [1.0, 1.0], WBF, folder=tmp_path).provenance.weak is None


# What the file says


def test_the_header_names_the_files_and_how_they_were_fused(tmp_path, fuse):
    pair = random_predictions(4, epoch=3), of_other_input(random_predictions(4), 320)
    run = Run("both", 0, "", tmp_path)
    fuse(*pair, weights=[3.0, 1.0], run=run).save(tmp_path / "fused.npz")
    made_by = load_predictions(tmp_path / "fused.npz").provenance
    assert (made_by.model, made_by.fold, made_by.epoch) == ("both", 0, FUSED_EPOCH)
    assert made_by.fusion is not None and made_by.fusion.fusion == WBF
    named = [(each.file, each.model, each.epoch, each.weight) for each in made_by.fusion.inputs]
    assert named == [("0.npz", "demo", 3, 0.75), ("1.npz", "other", 4, 0.25)]
    assert all(len(each.sha256) == 64 for each in made_by.fusion.inputs)
    described = describe_networks(made_by)
    assert [each["file"] for each in described["members"]] == ["0.npz", "1.npz"]
    assert described["fusion"]["method"] == "wbf"


def test_a_file_of_no_run_keeps_the_fold_that_all_share(fuse):
    assert fuse(random_predictions(4), random_predictions(5)).provenance.fold == 0
    other = random_predictions(5)
    other = replace(other, provenance=replace(other.provenance, fold=1))
    made_by = fuse(random_predictions(4), other).provenance
    assert (made_by.model, made_by.fold, made_by.epoch) == (None, None, None)


def test_a_run_of_another_fold_is_refused(tmp_path, fuse):
    run = Run("both", 2, "", tmp_path)
    with pytest.raises(InputError, match="both_fold_2: the inputs are of fold 0"):
        fuse(random_predictions(4), random_predictions(5), run=run)
