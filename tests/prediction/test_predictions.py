import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

from src.prediction.predictions import (
    ALL_ARRAYS,
    ARRAYS,
    PredictionsError,
    join_predictions,
    load_predictions,
    take_images,
    to_xywh,
)
from src.prediction.provenance import Provenance
from src.retinanet.settings import WeakLimits
from src.scoring.grid import sweep_epoch
from src.system.files import OutputError
from tests import oracles
from tests.hostile_files import Exploit, count_refusals
from tests.made_predictions import (
    make_fold,
    make_predictions,
    random_predictions,
    with_weak_boxes,
)

BOX = [20, 20, 80, 80]


def refuse(path, match):
    with pytest.raises(PredictionsError, match=match) as caught:
        load_predictions(path)
    assert str(path) in str(caught.value)


def test_predictions_come_back_as_they_were_saved(tmp_path):
    saved = random_predictions()
    path = tmp_path / "new folder" / "000.npz"
    saved.save(path)
    loaded = load_predictions(path)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(loaded, name), getattr(saved, name))
        assert getattr(loaded, name).dtype == getattr(saved, name).dtype
    assert loaded.provenance == saved.provenance


def test_predictions_without_any_candidate_come_back(tmp_path):
    empty = replace(
        random_predictions(n_images=2),
        offsets=np.zeros(3, np.int64),
        boxes_xyxy=np.zeros((0, 4), np.float32),
        scores=np.zeros(0, np.float32),
    )
    empty.save(tmp_path / "000.npz")
    assert load_predictions(tmp_path / "000.npz").boxes_xyxy.shape == (0, 4)


def test_predictions_know_whether_every_truth_is_known():
    predictions = random_predictions()
    one_unknown = predictions.true_categories.copy()
    one_unknown[3] = -1
    assert predictions.has_truth
    assert not replace(predictions, true_categories=one_unknown).has_truth


def test_boxes_lead_back_to_the_pixels_of_a_file_that_is_not_square():
    predictions = replace(
        random_predictions(n_images=1, img_size=512), image_sizes=np.array([[2048, 1024]])
    )
    found = predictions.in_file_pixels(0, np.array([[1, 2, 3, 4]], np.float32))
    np.testing.assert_array_equal(found, [[2, 8, 6, 16]])
    assert predictions.in_file_pixels(0, np.zeros((0, 4), np.float32)).shape == (0, 4)


@pytest.mark.parametrize("shown", [{}, {"source_crop": 768}, {"fit": "pad"}])
def test_boxes_of_a_file_lead_to_the_input_and_back(shown):
    predictions = random_predictions(n_images=1, img_size=384)
    provenance = replace(predictions.provenance, **shown)
    predictions = replace(predictions, image_sizes=np.array([[700, 1100]]), provenance=provenance)
    boxes = np.random.default_rng(0).uniform(-50, 1200, (20, 4))
    back = predictions.in_input_pixels(0, predictions.in_file_pixels(0, boxes))
    np.testing.assert_allclose(back, boxes, rtol=0, atol=1e-9)
    assert predictions.in_input_pixels(0, boxes[:0]).shape == (0, 4)


def test_boxes_of_a_central_crop_lead_back_to_the_pixels_of_the_file():
    predictions = random_predictions(n_images=1, img_size=384)
    predictions = replace(predictions, provenance=Provenance(img_size=384, source_crop=768))
    found = predictions.in_file_pixels(0, np.array([[0, 0, 384, 192]], np.float32))
    np.testing.assert_array_equal(found, [[128, 128, 896, 512]])


def test_a_missing_predictions_file_is_named(tmp_path):
    refuse(tmp_path / "007.npz", "no such predictions file")


def test_a_file_that_is_something_else_is_refused(tmp_path):
    path = tmp_path / "000.npz"
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    np.save(tmp_path / "array.npy", np.zeros(3))
    other = (tmp_path / "other.npz").read_bytes()
    array = (tmp_path / "array.npy").read_bytes()
    for content in (b"", b"patientId,x\n", b"PK\x03\x04 nothing", other, other[:40], array):
        path.write_bytes(content)
        refuse(path, "not a predictions file")


def test_damage_anywhere_in_the_file_is_refused_or_harmless(tmp_path):
    path = tmp_path / "000.npz"
    with_weak_boxes(random_predictions(n_images=2)).save(path)
    assert count_refusals(path, load_predictions, PredictionsError) > 300


def test_pickled_code_in_a_predictions_file_does_not_run(tmp_path):
    path, touched = tmp_path / "000.npz", tmp_path / "touched"
    exploit = Exploit(touched)
    pickle.loads(pickle.dumps(exploit))
    assert touched.exists(), "the exploit works where it is let in"
    touched.unlink()
    for name in ("ids", "scores", "header"):
        arrays = {"header": np.array("{}")} | {n: np.zeros(1) for n in ARRAYS}
        arrays[name] = np.array([exploit], dtype=object)
        np.savez(path, allow_pickle=True, **arrays)
        refuse(path, "not a predictions file")
    path.write_bytes(pickle.dumps(exploit))
    refuse(path, "not a predictions file")
    assert not touched.exists()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"ids": np.arange(8)}, "ids is int64"),
        ({"ids": np.array("one")}, "ids"),
        ({"scores": np.zeros(3, np.float32)}, "scores"),
        ({"scores": np.zeros((2, 2), np.float32)}, "scores is float32 with 2 dimensions"),
        ({"boxes_xyxy": np.zeros((4, 3), np.float32)}, "boxes_xyxy has shape"),
        ({"class_probs": np.zeros((7, 3), np.float32)}, "class_probs has shape"),
        ({"class_probs": np.zeros((8, 3), np.int64)}, "class_probs is int64"),
        ({"offsets": np.zeros(8, np.int64)}, "offsets has shape"),
        ({"offsets": np.zeros(9, np.int64)}, "offsets do not cover"),
        ({"true_offsets": np.zeros(9)}, "true_offsets is float64"),
        ({"true_categories": np.zeros(9, np.int64)}, "true_categories has shape"),
        ({"image_sizes": np.zeros((8, 3), np.int64)}, "image_sizes has shape"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, changes, match):
    path = tmp_path / "000.npz"
    replace(random_predictions(), **changes).save(path)
    refuse(path, match)


def test_offsets_that_go_backwards_are_refused(tmp_path):
    path = tmp_path / "000.npz"
    predictions = random_predictions()
    offsets = predictions.offsets.copy()
    offsets[3] = offsets[-1] + 1
    replace(predictions, offsets=offsets).save(path)
    refuse(path, "offsets do not cover boxes_xyxy in order")


@pytest.mark.parametrize("name", ["boxes_xyxy", "scores", "true_boxes_xyxy", "class_probs"])
def test_numbers_that_are_not_finite_are_refused(tmp_path, name):
    path = tmp_path / "000.npz"
    predictions = random_predictions()
    array = getattr(predictions, name).copy()
    array.flat[1] = np.nan
    replace(predictions, **{name: array}).save(path)
    refuse(path, f"{name} holds a number that is not finite")


SOUND = {"format": "pneumonia-predictions", "version": 1, "img_size": 192}


@pytest.mark.parametrize(
    "header",
    [
        "",
        "[1]",
        "no json",
        "{}",
        "[" * 100_000,
        json.dumps(SOUND | {"format": "other"}),
        json.dumps(SOUND | {"version": 2}),
        json.dumps({"format": "pneumonia-predictions", "version": 1}),
        json.dumps(SOUND | {"img_size": 0}),
        json.dumps(SOUND | {"img_size": "192"}),
        json.dumps(SOUND | {"img_size": True}),
        json.dumps(SOUND | {"img_size": None}),
        json.dumps(SOUND | {"img_size": 2**16 + 1}),
        json.dumps(SOUND | {"source_crop": -1}),
        json.dumps(SOUND | {"fold": "0"}),
        json.dumps(SOUND | {"epoch": 1.5}),
        json.dumps(SOUND | {"ensemble": "text"}),
        json.dumps(SOUND | {"ensemble": {}}),
        json.dumps(SOUND | {"ensemble": {"members": [], "hflip": 1}}),
        json.dumps(SOUND | {"ensemble": {"members": ["demo"], "hflip": False}}),
        json.dumps(SOUND | {"ensemble": {"members": [], "hflip": False, "k": "x"}}),
        json.dumps(SOUND | {"ensemble": {"members": [], "hflip": False, "size_rule": 5}}),
    ],
)
def test_a_wrong_header_is_refused(tmp_path, header):
    path, predictions = tmp_path / "000.npz", random_predictions()
    arrays = {name: getattr(predictions, name) for name in ARRAYS} | {"header": np.array(header)}
    np.savez(path, allow_pickle=False, **arrays)
    refuse(path, "not a predictions file")


def test_fields_of_the_header_that_nobody_knows_are_passed_over(tmp_path):
    path, predictions = tmp_path / "000.npz", random_predictions()
    arrays: dict[str, np.ndarray] = {name: getattr(predictions, name) for name in ARRAYS}
    arrays["header"] = np.array(json.dumps(SOUND | {"note": ["of", "a", "later", "version"]}))
    np.savez(path, allow_pickle=False, **arrays)
    assert load_predictions(path).provenance == Provenance(img_size=192)


def test_a_failed_save_leaves_the_older_file(tmp_path):
    path = tmp_path / "000.npz"
    random_predictions().save(path)
    before = path.read_bytes()
    unsaveable = replace(random_predictions(1), ids=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match=r"[Oo]bject arrays"):
        unsaveable.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_predictions_below_a_file_cannot_be_saved(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be created"):
        random_predictions().save(tmp_path / "file" / "000.npz")


def test_a_class_that_there_is_not_is_refused(tmp_path):
    predictions = random_predictions()
    categories = predictions.true_categories.copy()
    categories[0] = 3
    replace(predictions, true_categories=categories).save(tmp_path / "000.npz")
    refuse(tmp_path / "000.npz", "true_categories holds 3, which is not between -1 and 2")


def test_joined_predictions_keep_every_image_as_it_was():
    parts = [make_fold(fold) for fold in range(3)]
    joined = join_predictions(parts)
    assert len(joined) == 24
    assert joined.provenance == Provenance(img_size=192, model="demo", fold=None, tag="", epoch=0)
    for p, part in enumerate(parts):
        for image in range(len(part)):
            ours, its = joined.candidates_of(8 * p + image), part.candidates_of(image)
            np.testing.assert_array_equal(joined.boxes_xyxy[ours], part.boxes_xyxy[its])
            np.testing.assert_array_equal(joined.scores[ours], part.scores[its])
            ours, its = joined.truth_of(8 * p + image), part.truth_of(image)
            np.testing.assert_array_equal(joined.true_boxes_xyxy[ours], part.true_boxes_xyxy[its])


def test_an_image_in_two_folds_is_refused():
    with pytest.raises(PredictionsError, match=r"patient-1-0 .* demo fold 1 .* demo fold 1"):
        join_predictions([make_fold(0), make_fold(1), make_fold(1)])


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"img_size": 256}, "192 and of 256 px"),
        ({"source_crop": 768}, "source_crop None and 768"),
        ({"fit": "pad"}, "fit squeeze and pad"),
    ],
)
def test_folds_of_different_inputs_are_refused(changes, match):
    with pytest.raises(PredictionsError, match=match):
        join_predictions([make_fold(0), make_fold(1, **changes)])


def test_images_are_taken_in_the_order_that_is_given():
    predictions = random_predictions(n_images=12)
    images = [7, 0, 11, 3]
    some = take_images(predictions, images)
    assert some.ids.tolist() == [f"patient-{image}" for image in images]
    for i, image in enumerate(images):
        ours, its = some.candidates_of(i), predictions.candidates_of(image)
        np.testing.assert_array_equal(some.boxes_xyxy[ours], predictions.boxes_xyxy[its])
        np.testing.assert_array_equal(some.scores[ours], predictions.scores[its])
        ours, its = some.truth_of(i), predictions.truth_of(image)
        np.testing.assert_array_equal(some.true_boxes_xyxy[ours], predictions.true_boxes_xyxy[its])
        np.testing.assert_array_equal(some.class_probs[i], predictions.class_probs[image])
    assert len(take_images(predictions, [])) == 0


def test_boxes_as_tables_have_corner_and_size():
    predictions = random_predictions(n_images=12)
    for table, corners, offsets in (
        (predictions.candidates(), predictions.boxes_xyxy, predictions.offsets),
        (predictions.truth(), predictions.true_boxes_xyxy, predictions.true_offsets),
    ):
        assert table.xywh.dtype == np.float64
        np.testing.assert_array_equal(table.xywh, oracles.xywh(corners))
        np.testing.assert_array_equal(table.offsets, offsets)


# Patients


def with_groups(predictions, *names):
    """Say of the first images whose they are."""
    groups = [*names, *[""] * (len(predictions) - len(names))]
    return replace(predictions, group_ids=np.array(groups))


def test_the_groups_of_images_come_back(tmp_path):
    saved = with_groups(random_predictions(), "P1", "", "P1")
    saved.save(tmp_path / "000.npz")
    loaded = load_predictions(tmp_path / "000.npz")
    assert loaded.group_ids.tolist() == saved.group_ids.tolist()
    assert loaded.patients[0] == loaded.patients[2]
    assert len(set(loaded.patients.tolist())) == len(loaded) - 1


def test_without_groups_nothing_is_stored_and_every_image_is_alone(tmp_path):
    random_predictions().save(tmp_path / "000.npz")
    with np.load(tmp_path / "000.npz", allow_pickle=False) as content:
        assert set(content) == {*ARRAYS, "header"}
    loaded = load_predictions(tmp_path / "000.npz")
    assert len(set(loaded.patients.tolist())) == len(loaded)


def test_images_keep_their_groups_in_a_pool_and_in_a_part():
    first, second = with_groups(make_fold(0), "P1", "P2"), with_groups(make_fold(1), "P2")
    pool = join_predictions([first, second])
    assert pool.patients[1] == pool.patients[8]
    assert len(set(pool.patients.tolist())) == 15
    assert take_images(pool, [8, 3, 1]).group_ids.tolist() == ["P2", "", "P2"]


def test_weaker_boxes_come_back_and_change_nothing_else(tmp_path):
    plain = random_predictions()
    predictions = with_weak_boxes(plain)
    predictions.save(tmp_path / "000.npz")
    loaded = load_predictions(tmp_path / "000.npz")
    for name in ALL_ARRAYS:
        np.testing.assert_array_equal(getattr(loaded, name), getattr(predictions, name))
    assert loaded.provenance.weak == WeakLimits()
    assert loaded.provenance.is_same(plain.provenance)
    np.testing.assert_array_equal(sweep_epoch(loaded), sweep_epoch(plain))


def test_weaker_boxes_stand_behind_the_candidates_of_their_image():
    predictions = with_weak_boxes(random_predictions(n_images=12))
    found = predictions.with_weak()
    boxes, scores = found.candidates(), found.scores
    assert (found.provenance.weak, len(found.weak_scores)) == (None, 0)
    for image in range(len(predictions)):
        own = slice(*boxes.offsets[image : image + 2].tolist())
        weak = slice(*predictions.weak_offsets[image : image + 2].tolist())
        parts = predictions.scores[predictions.candidates_of(image)], predictions.weak_scores[weak]
        np.testing.assert_array_equal(scores[own], np.concatenate(parts))
        parts = (
            predictions.boxes_xyxy[predictions.candidates_of(image)],
            predictions.weak_boxes_xyxy[weak],
        )
        np.testing.assert_array_equal(boxes.xywh[own], to_xywh(np.concatenate(parts)))


def test_a_weaker_box_that_scores_more_than_a_candidate_comes_before_it():
    """As where boxes were fused: candidates are fused by themselves."""
    plain = make_predictions(([], [(BOX, 0.5), (BOX, 0.01)]), ([], [(BOX, 0.4)]))
    weak = replace(
        plain,
        weak_offsets=np.array([0, 2, 2]),
        weak_boxes_xyxy=np.array([[1, 1, 9, 9]] * 2, np.float32),
        weak_scores=np.array([0.02, 0.01], np.float32),
    )
    found = weak.with_weak()
    assert found.scores == pytest.approx([0.5, 0.02, 0.01, 0.01, 0.4])
    assert found.boxes_xyxy[:, 0].tolist() == [BOX[0], 1, BOX[0], 1, BOX[0]]
    assert found.offsets.tolist() == [0, 4, 5]


def test_images_keep_their_weaker_boxes():
    predictions = with_weak_boxes(random_predictions(n_images=12))
    some = take_images(predictions, [7, 3])
    for i, image in enumerate([7, 3]):
        own, its = (
            slice(*each.weak_offsets[place : place + 2].tolist())
            for each, place in ((some, i), (predictions, image))
        )
        np.testing.assert_array_equal(some.weak_scores[own], predictions.weak_scores[its])
    parts = [with_weak_boxes(make_fold(fold), fold) for fold in (0, 1)]
    joined = join_predictions(parts)
    np.testing.assert_array_equal(
        joined.weak_scores, np.concatenate([part.weak_scores for part in parts])
    )
    assert joined.provenance.weak == WeakLimits()
    assert join_predictions([parts[0], make_fold(1)]).provenance.weak is None


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"weak_offsets": np.zeros(9, np.int64)}, "weak_offsets do not cover"),
        ({"weak_scores": np.zeros(3, np.float32)}, "weak_scores has shape"),
        ({"weak_scores": np.zeros(3)}, "weak_scores is float64"),
    ],
)
def test_weaker_boxes_that_do_not_fit_are_refused(tmp_path, changes, match):
    path = tmp_path / "000.npz"
    replace(with_weak_boxes(random_predictions()), **changes).save(path)
    refuse(path, match)
