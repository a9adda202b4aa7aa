"""Odd but well-typed content of predictions.npz is refused in one line by all that read it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from src import scores, submission, train_runner
from src.prediction.predictions import (
    PredictionsError,
    join_predictions,
    load_predictions,
    load_provenance,
)
from src.prediction.provenance import Combination, NetworkId, Provenance
from src.visualizations import plot_detections, plot_global_head, plot_numbers, report
from tests.made_predictions import make_fold, random_predictions

SOUND = random_predictions(1, n_images=6, epoch=1)


def changed(name, change):
    """Change a copy of one array of the sound predictions."""
    array = getattr(SOUND, name).copy()
    change(array)
    return {name: array}


def set_first(name, value):
    return changed(name, lambda array: array.__setitem__((0,) * array.ndim, value))


def swap_edges(boxes):
    boxes[2, [0, 2]] = boxes[2, [2, 0]]


def swap_scores(scores):
    first = int(SOUND.offsets[np.argmax(np.diff(SOUND.offsets) > 1)])
    scores[[first, first + 1]] = scores[[first + 1, first]]


ODD_ARRAYS = {
    "surrogates": (set_first("ids", "\udc80"), "ids holds what is no text"),
    "duplicate ids": (set_first("ids", "patient-1"), "ids holds 'patient-1' twice"),
    "sizes of 0": (set_first("image_sizes", 0), "image_sizes holds 0, which is not between 1"),
    "negative sizes": (set_first("image_sizes", -5), "image_sizes holds -5"),
    "huge sizes": (set_first("image_sizes", 2**40), "image_sizes holds 1099511627776"),
    "probabilities over 1": (set_first("class_probs", 1.5), "class_probs holds 1.5"),
    "negative probabilities": (set_first("class_probs", -0.25), "class_probs holds -0.25"),
    "scores over 1": (set_first("scores", 7), "scores holds 7.0, which is not between 0 and"),
    "negative scores": (changed("scores", lambda s: np.negative(s, out=s)), "scores holds -"),
    "unsorted scores": (changed("scores", swap_scores), "scores do not descend within each image"),
    "boxes inside out": (changed("boxes_xyxy", swap_edges), "right or lower edge comes first"),
    "boxes far away": (set_first("boxes_xyxy", -1e30), "boxes_xyxy holds -"),
    "true boxes inside out": (
        {"true_boxes_xyxy": SOUND.true_boxes_xyxy[:, ::-1].copy()},
        "right or lower edge comes first",
    ),
    "negative offsets": (set_first("offsets", -1), "offsets holds -1"),
    "groups of fewer images": ({"group_ids": np.array(["P1"])}, "group_ids has shape (1,)"),
    "groups that are numbers": ({"group_ids": np.arange(6)}, "group_ids is int64"),
    "groups that are no text": (
        {"group_ids": np.array(["\udc80"] * 6)},
        "group_ids holds what is no text",
    ),
    "float64": ({"scores": SOUND.scores.astype(float)}, "scores is float64"),
}
MEMBER = {"model": "demo", "tag": "", "fold": 0, "epoch": 1, "weight": 1.0}
ENSEMBLE = {"members": [MEMBER], "hflip": True}
FUSED_FILE = MEMBER | {"file": "a.npz", "sha256": "0" * 64}
FUSION = {"inputs": [FUSED_FILE], "fusion": {"method": "wbf", "iou": 0.5}, "nms": 0.05,
          "shrink": 1.0}  # fmt: skip
ODD_FIELDS = {  # texts of JSON
    "img_size of 5000 digits": ("img_size", "9" * 5000),
    "img_size 10^400": ("img_size", "1" + "0" * 400),
    "img_size infinite": ("img_size", "Infinity"),
    "a model in a list": ("model", '["a"]'),
    "a model that leaves the folder": ("model", '"../../a b"'),
    "an endless model": ("model", json.dumps("m" * 50_000)),
    "a tag that leaves the folder": ("tag", '"/../../tmp/x"'),
    "a tag with control characters": ("tag", r'"a\u001b[2J"'),
    "fold 20": ("fold", "20"),
    "fold 10^400": ("fold", "1" + "0" * 400),
    "epoch -1": ("epoch", "-1"),
    "epoch 10^4000": ("epoch", "1" + "0" * 4000),
    "named by nobody": ("named_by", '"doctor"'),
    "no members": ("ensemble", json.dumps(ENSEMBLE | {"members": []})),
    "a weight of 2": ("ensemble", json.dumps(ENSEMBLE | {"members": [MEMBER | {"weight": 2}]})),
    "a weight that is NaN": (
        "ensemble",
        json.dumps(ENSEMBLE | {"members": [MEMBER | {"weight": float("nan")}]}),
    ),
    "a member's epoch -1": (
        "ensemble",
        json.dumps(ENSEMBLE | {"members": [MEMBER | {"epoch": -1}]}),
    ),
    "an infinite k": ("ensemble", json.dumps(ENSEMBLE | {"k": float("inf")})),
    "k 10^400": ("ensemble", json.dumps(ENSEMBLE)[:-1] + ', "k": 1' + "0" * 400 + "}"),
    "a fusion of nothing": ("fusion", json.dumps(FUSION | {"inputs": []})),
    "an unknown way of fusing": ("fusion", json.dumps(FUSION | {"fusion": {"method": "magic"}})),
    "a fused file without a name": ("fusion", json.dumps(FUSION | {"inputs": [MEMBER]})),
    "nesting": ("ensemble", "[" * 50_000),
}


def write_odd(path, *, arrays=None, field=None):
    """Save the sound predictions with other arrays, or with a field of the header as JSON text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    SOUND.save(path)
    with np.load(path, allow_pickle=False) as saved:
        content = dict(saved)
    if field is not None:
        name, text = field
        header = json.loads(str(content["header"])) | {name: None}
        other = json.dumps({key: value for key, value in header.items() if key != name})
        content["header"] = np.array(f'{other[:-1]}, "{name}": {text}}}')
    np.savez(path, allow_pickle=False, **(content | (arrays or {})))
    return path


def commands_on(run_dir, out):
    saved = run_dir / "predictions" / "001.npz"
    check = ("--action", "check_metric", "--model", "demo", "--output-dir", run_dir.parent)
    write = ("write", saved, "--out", out / "s.csv", "--threshold", "0.3")
    return [
        (scores.main, (run_dir,)),
        (submission.main, write),
        (train_runner.main, check),
        (report.main, (run_dir,)),
        (plot_detections.main, (run_dir, "--out", out / "d.png")),
        (plot_global_head.main, (run_dir, "--out", out / "g.png")),
        (plot_numbers.main, (run_dir, "--out", out / "n.png")),
    ]


def check_refused(outcome, path, words):
    assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome.err
    assert outcome.err.startswith(f"error: {path}: not a predictions file: ")
    assert words in outcome.err
    assert len(outcome.err) < len(str(path)) + 400
    assert outcome.err[:-1].isprintable()


@pytest.mark.parametrize(("arrays", "words"), ODD_ARRAYS.values(), ids=ODD_ARRAYS)
def test_odd_arrays_are_refused_in_one_line_by_every_command(tmp_path, call_main, arrays, words):
    path = write_odd(tmp_path / "demo_fold_0" / "predictions" / "001.npz", arrays=arrays)
    for main, arguments in commands_on(tmp_path / "demo_fold_0", tmp_path / "out"):
        check_refused(call_main(main, *arguments), path, words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("field", ODD_FIELDS.values(), ids=ODD_FIELDS)
def test_an_odd_header_is_refused_in_one_line_by_every_command(tmp_path, call_main, field):
    path = write_odd(tmp_path / "demo_fold_0" / "predictions" / "001.npz", field=field)
    for main, arguments in commands_on(tmp_path / "demo_fold_0", tmp_path / "out"):
        check_refused(call_main(main, *arguments), path, "")
    with pytest.raises(PredictionsError, match=r"001\.npz: not a predictions file"):
        load_provenance(path)
    assert not (tmp_path / "out").exists()


def test_odd_predictions_are_not_used_again(trained, phantoms, tmp_path, call_main):
    path = write_odd(tmp_path / "demo_fold_0" / "predictions" / "001.npz", arrays=ODD_ARRAYS[
        "unsorted scores"][0])  # fmt: skip
    folders = ("--data-dir", phantoms, "--output-dir", tmp_path, "--num-workers", "0")
    action = ("--action", "generate_predictions", "--model", "demo", "--epoch", "1")
    outcome = call_main(train_runner.main, *action, *folders)
    check_refused(outcome, path, "scores do not descend")


def test_rounding_may_carry_a_mean_of_probabilities_above_one(tmp_path):
    just_above = np.nextafter(np.float32(1), np.float32(2))
    path = write_odd(tmp_path / "a.npz", arrays=set_first("class_probs", just_above))
    assert load_predictions(path).class_probs[0, 0] == just_above


def test_what_a_training_saves_passes(tmp_path):
    SOUND.save(tmp_path / "a.npz")
    assert load_predictions(tmp_path / "a.npz").provenance == SOUND.provenance
    assert load_provenance(tmp_path / "a.npz") == SOUND.provenance
    made_by = Provenance(
        img_size=192,
        model="a-b_c.d+timm/e.f",
        tag="x_ensemble",
        named_by="file",
        ensemble=Combination(
            members=tuple(NetworkId(model="timm/e.f", epoch=i, weight=0.5) for i in range(2)),
            hflip=True,
            size_rule="percentile",
            k=-0.5,
        ),
    )
    replace(SOUND, provenance=made_by).save(tmp_path / "b.npz")
    assert load_predictions(tmp_path / "b.npz").provenance == made_by


def test_predictions_of_files_name_the_patients_among_them():
    ids = np.array(["p1.dcm", "deep/p2.DCM", "x.png", "y", "p.1.dcm", "z.dcm.png"])
    files = replace(SOUND, ids=ids, provenance=replace(SOUND.provenance, named_by="file"))
    assert files.patient_ids == ["p1", "p2", "", "", "p.1", ""]
    assert SOUND.patient_ids == SOUND.ids.tolist()


def test_predictions_of_patients_and_of_files_are_not_pooled():
    files, patients = make_fold(0, named_by="file"), make_fold(1)
    with pytest.raises(PredictionsError, match="of patients and of files cannot be pooled"):
        join_predictions([files, patients])


def test_a_patient_in_two_parts_is_named_by_the_beginning_of_its_id():
    ids = np.array([f"{i}{'x' * 5000}" for i in range(len(SOUND))])
    long = replace(SOUND, ids=ids)
    with pytest.raises(PredictionsError, match="patient 0xxx") as caught:
        join_predictions([long, long])
    assert len(str(caught.value)) < 300
