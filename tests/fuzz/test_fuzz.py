"""Readers of files give a result or their declared error, whatever is in the file.

A few damaged files of each kind here; `python tests/fuzz/run.py --inputs 2000` reads thousands.
Beside them come files that are well-formed and hold nonsense.
"""

import dataclasses
import json
import warnings

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from scripts.rsna_release import Findings, read_annotations
from src.challenge.submission_file import N_FIELDS, parse_submission
from src.datasets.annotations import read_label_files
from src.datasets.folds import read_folds
from src.experiments.checkpoints import load_checkpoint
from src.experiments.history import read_history
from src.prediction.predictions import ARRAYS, load_predictions
from src.prediction.presets import GATES
from src.prediction.provenance import Combination, NetworkId, Provenance
from src.radiographs.dicom import image_size, read_image
from src.scoring.sweep import AXES
from src.structures import CLASS_NAMES
from src.system.errors import InputError
from tests.dicom_files import make_dataset
from tests.fuzz.readers import READERS, check_pixels, use_predictions, use_sweep
from tests.made_checkpoints import as_version_1, make_checkpoint, make_state, rewrite_facts
from tests.made_predictions import random_predictions
from tests.paths import ROOT

N_INPUTS = 40  # of each reader

# The same examples in every run, and files where each example overwrites the one before.
quickly = settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

numbers = st.one_of(
    st.integers(-5, 1100).map(str),
    st.floats(-5, 1100).map(str),
    st.sampled_from(["", " ", "nan", "-inf", "1e400", "9" * 5000, "0x1", "1,5", "\0", "²", "١"]),
)
words = st.one_of(st.sampled_from(["p1", "p2", "", ".", "a/b", '"', "p\n1", "\ufeff"]), st.text())
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


def give_or_refuse(read, path):
    """Return what a reader gives, None where it raises its declared error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read(path)
    except InputError as error:
        assert str(path) in str(error)
        return None


def write_csv(path, header, rows):
    text = "\n".join([header, *map(",".join, rows)])
    path.write_text(text, encoding="utf-8", errors="replace")
    return path


def test_damaged_files_of_every_kind_are_read_or_refused(run_command):
    outcome = run_command(ROOT / "tests" / "fuzz" / "run.py", "--inputs", N_INPUTS)
    table = [line.rsplit(maxsplit=5) for line in outcome.out.splitlines()[1:]]
    assert [row[0].strip() for row in table] == list(READERS)
    for name, n_inputs, n_refused, n_accepted, _, memory in table:
        assert int(n_refused) + int(n_accepted) == int(n_inputs)
        assert int(n_inputs) == N_INPUTS or name.strip() == "DICOM, real"  # they may be missing
        assert float(memory) < 100
    assert sum(int(row[2]) for row in table) > 5 * N_INPUTS
    assert sum(int(row[3]) for row in table) > 2 * N_INPUTS


@quickly
@given(rows=st.lists(st.tuples(words, *[numbers] * 4, st.sampled_from("012"),
                               st.sampled_from([*CLASS_NAMES, ""])), max_size=4))  # fmt: skip
def test_any_table_of_labels_is_read_or_refused(tmp_path, rows):
    path = write_csv(tmp_path / "a.csv", "patientId,x,y,width,height,Target,class", rows)
    for record in give_or_refuse(read_label_files, path) or ():
        assert np.isfinite(record.boxes_xywh).all()


@quickly
@given(rows=st.lists(st.tuples(words, numbers), max_size=5))
def test_any_table_of_folds_or_epochs_is_read_or_refused(tmp_path, rows):
    folds = give_or_refuse(read_folds, write_csv(tmp_path / "a.csv", "patientId,fold", rows))
    assert all(fold >= 0 for fold in (folds or {}).values())
    history = write_csv(tmp_path / "b.csv", "loss,epoch", rows)
    give_or_refuse(lambda path: read_history(path, ["loss"]), history)


@quickly
@given(rows=st.lists(st.tuples(words, st.lists(numbers, max_size=2 * N_FIELDS).map(" ".join))))
def test_any_submission_is_read_with_its_faults(tmp_path, rows):
    path = write_csv(tmp_path / "a.csv", "patientId,PredictionString", rows)
    submission = parse_submission(path, size_of=lambda _: (1024, 1024))
    for boxes in submission.boxes.values():
        assert np.isfinite(np.array(boxes, dtype=float)).all()
    assert all(len(fault.describe(path)) < 1000 for fault in submission.faults)


def any_array():
    kinds = st.one_of(
        arrays_of.integer_dtypes(),
        arrays_of.floating_dtypes(),
        arrays_of.unicode_string_dtypes(max_len=5),
        arrays_of.complex_number_dtypes(),
        arrays_of.datetime64_dtypes(),
        arrays_of.boolean_dtypes(),
    )
    return arrays_of.arrays(kinds, arrays_of.array_shapes(min_dims=0, max_side=9, min_side=0))


@quickly
@given(changes=st.dictionaries(st.sampled_from([*ARRAYS, "header"]), any_array(), max_size=2))
def test_any_arrays_are_read_as_predictions_or_refused(tmp_path, changes):
    path = tmp_path / "a.npz"
    random_predictions().save(path)
    with np.load(path) as saved:
        np.savez(path, **(dict(saved) | changes))
    predictions = give_or_refuse(load_predictions, path)
    if predictions is not None:
        assert np.isfinite(predictions.scores).all()
        give_or_refuse(use_predictions, path)


def any_record(kind):
    """Fields of a record, with the types that they should have or with others."""
    names = [field.name for field in dataclasses.fields(kind)]
    return st.dictionaries(st.sampled_from(names), st.integers() | words | plain)


any_ensemble = st.builds(
    lambda fields, members: {"members": members, "hflip": False} | fields,
    any_record(Combination),
    st.lists(any_record(NetworkId), max_size=2),
)


@quickly
@given(fields=plain | any_record(Provenance) | any_ensemble.map(lambda e: {"ensemble": e}))
def test_any_header_is_read_as_one_of_predictions_or_refused(tmp_path, fields):
    path = tmp_path / "a.npz"
    random_predictions().save(path)
    with np.load(path) as saved:
        header = json.loads(str(saved["header"]))
        header = header | fields if isinstance(fields, dict) else fields
        np.savez(path, **(dict(saved) | {"header": np.array(json.dumps(header))}))
    give_or_refuse(use_predictions, path)


@quickly
@given(changes=st.dictionaries(st.sampled_from([*AXES, "scores", "header"]), any_array()))
def test_any_arrays_are_read_as_scores_or_refused(tmp_path, changes):
    sound: dict[str, np.ndarray] = {name: np.array([0.1, 0.3]) for name in AXES}
    sound |= {"epoch": np.arange(2), "gate": np.array(list(GATES)[:2])}
    sound |= {"scores": np.zeros([2] * len(AXES)), "header": np.array("{}")}
    np.savez(tmp_path / "a.npz", **(sound | changes))
    give_or_refuse(use_sweep, tmp_path / "a.npz")


@quickly
@given(content=plain, field=st.sampled_from(["model", "settings", "epoch", "version", "training"]))
def test_any_values_are_read_as_a_checkpoint_or_refused(tmp_path, content, field):
    sound = make_checkpoint(training=make_state())
    torch.save(as_version_1(sound) | {field: content}, tmp_path / "a.pt")
    give_or_refuse(lambda path: load_checkpoint(path, "demo"), tmp_path / "a.pt")


@quickly
@given(
    content=plain, field=st.sampled_from(["format", "experiment", "settings", "epoch", "training"])
)
def test_any_facts_are_read_as_a_checkpoint_or_refused(tmp_path, content, field):
    path = tmp_path / "a.safetensors"
    make_checkpoint(training=make_state()).save(path)
    rewrite_facts(path, lambda facts: facts | {field: content})
    give_or_refuse(lambda path: load_checkpoint(path, "demo"), path)


@quickly
@given(inner=plain, place=st.integers(0, 6))
def test_any_json_is_read_as_rsnas_annotations_or_refused(tmp_path, inner, place):
    group = {"name": "Calculated", "labels": [{"id": "L", "name": CLASS_NAMES[2]}]}
    data = {"x": 1, "y": 2, "width": 3, "height": 4}
    export = [
        inner,
        {"labelGroups": inner, "datasets": []},
        {"labelGroups": [group], "datasets": inner},
        {"labelGroups": [group, inner], "datasets": [{"annotations": []}]},
        {"labelGroups": [group], "datasets": [{"annotations": inner}]},
        {"labelGroups": [group], "datasets": [{"annotations": [
            {"SOPInstanceUID": "1", "labelId": inner, "data": data}]}]},
        {"labelGroups": [group], "datasets": [{"annotations": [
            {"SOPInstanceUID": "1", "labelId": "L", "data": data | {"width": inner}}]}]},
    ][place]  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(export))
    give_or_refuse(lambda path: read_annotations(path, Findings()), tmp_path / "a.json")


@pytest.mark.filterwarnings("ignore")  # pydicom's, of odd values
@quickly
@given(tags=st.fixed_dictionaries({}, optional={
    "Rows": st.integers(0, 65535), "Columns": st.sampled_from([0, 1, 5, 7, 65535]),
    "BitsAllocated": st.sampled_from([0, 1, 8, 12, 16, 32, 64]),
    "BitsStored": st.integers(0, 70), "HighBit": st.integers(0, 70),
    "SamplesPerPixel": st.integers(0, 4), "PixelRepresentation": st.integers(0, 3),
    "PlanarConfiguration": st.integers(0, 3), "NumberOfFrames": st.integers(-1, 2).map(str),
    "PhotometricInterpretation": st.sampled_from(
        ["MONOCHROME1", "RGB", "YBR_FULL", "YBR_FULL_422", "PALETTE COLOR", "YBR_RCT", "", "X"]),
    "RescaleSlope": st.sampled_from(["0", "-1", "1e308", "1e-320", "", "7.5"]),
    "RescaleIntercept": st.sampled_from(["0", "-1e308", "3", ""]),
    "PixelData": st.binary(max_size=80)}))  # fmt: skip
def test_any_header_of_dicom_is_read_or_refused(tmp_path, tags):
    pixels = np.arange(35, dtype=np.uint8).reshape(5, 7)
    make_dataset(pixels, **tags).save_as(tmp_path / "a.dcm", enforce_file_format=True)
    image = give_or_refuse(read_image, tmp_path / "a.dcm")
    size = give_or_refuse(image_size, tmp_path / "a.dcm")
    if image is not None:
        check_pixels(image)
        assert image.shape == size


@quickly
@given(content=st.binary(max_size=300))
@pytest.mark.parametrize("name", READERS)
def test_any_bytes_are_read_or_refused(tmp_path, name, content):
    reader = READERS[name]
    (tmp_path / reader.name).write_bytes(content)
    give_or_refuse(reader.read, tmp_path / reader.name)
