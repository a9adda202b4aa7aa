"""Another classifier's probabilities in place of the global head's."""

import json

import numpy as np
import pytest

from src import scores, submission
from src.datasets.tables import AnnotationsError
from src.prediction.image_scores import read_image_scores, with_image_scores
from src.prediction.outputs import made_by_path
from src.prediction.postprocess import gate_scores
from src.scoring.sweep import load_sweep
from tests.made_predictions import make_predictions, random_predictions, save_epoch

FALSE, TRUE = [100, 100, 150, 150], [20, 20, 80, 80]


def write_table(path, probabilities):
    rows = "".join(f"{name},{value}\n" for name, value in probabilities.items())
    path.write_text("patientId,probability\n" + rows)
    return path


def test_the_probability_takes_the_place_of_the_category_in_the_gates(tmp_path):
    predictions = random_predictions()
    rng = np.random.default_rng(0)
    table = {name: round(float(rng.random()), 3) for name in predictions.ids}
    path = write_table(tmp_path / "a.csv", table)
    changed = with_image_scores(predictions, read_image_scores(path), path)
    of_boxes = np.repeat([table[name] for name in predictions.ids], np.diff(predictions.offsets))
    expected = predictions.scores.astype(float) * of_boxes * 10
    np.testing.assert_allclose(gate_scores(changed, "score_category"), expected, rtol=1e-6)
    np.testing.assert_array_equal(gate_scores(changed, "score"), gate_scores(predictions, "score"))
    assert changed.provenance.image_scores == str(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("patientId,p\na,1\n", "has no column probability"),
        ("patientId,probability\na,1\na,0\n", "line 3: patient a again"),
        ("patientId,probability\na,1\nb,1.1\n", "line 3: probability '1.1' is not"),
        ("patientId,probability\na,nan\n", "line 2: probability 'nan' is not"),
        ("patientId,probability\na,\n", "line 2: probability '' is not"),
    ],
)
def test_a_table_that_holds_no_probabilities_is_refused(tmp_path, content, words):
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises(AnnotationsError, match=r"a\.csv: ") as caught:
        read_image_scores(path)
    assert words in str(caught.value)


@pytest.fixture
def run_dir(tmp_path):
    """Return a run whose boxes are equally sure in images with and without an opacity."""
    images = [([TRUE], [(TRUE, 0.9)]), ([], [(FALSE, 0.9)])] * 4
    save_epoch(tmp_path / "run", make_predictions(*images))
    return tmp_path / "run"


def test_a_classifier_that_knows_makes_the_sweep_perfect(tmp_path, run_dir, call_main):
    knows = {f"image-{i}": 0.9 if i % 2 == 0 else 0.1 for i in range(8)}
    path = write_table(tmp_path / "a.csv", knows)
    quick = ("--nms", "0.05", "--shrinks", "1")
    found = {}
    for name, flags in (("own", ()), ("other", ("--image-scores", path))):
        outcome = call_main(scores.main, run_dir, *quick, *flags)
        assert outcome.code == 0, outcome.err
        best = load_sweep(run_dir / "sweep.npz").best()
        assert best is not None
        found[name] = best.score
    assert found == {"own": 0.5, "other": 1.0}


def test_a_submission_is_written_with_the_probabilities_and_says_so(tmp_path, run_dir, call_main):
    knows = {f"image-{i}": 0.9 if i % 2 == 0 else 0.1 for i in range(8)}
    path = write_table(tmp_path / "a.csv", knows)
    out = tmp_path / "s.csv"
    flags = ("--threshold", "5", "--gate", "score_category", "--image-scores", path)
    saved = run_dir / "predictions" / "000.npz"
    outcome = call_main(submission.main, "write", saved, "--out", out, *flags)
    assert outcome.code == 0, outcome.err
    assert "8 images, 4 with boxes" in outcome.out
    assert json.loads(made_by_path(out).read_text())["image_scores"] == str(path)


def test_an_image_without_a_probability_is_named(tmp_path, run_dir, call_main, listing):
    path = write_table(tmp_path / "a.csv", {"image-0": 0.5})
    before = listing(tmp_path)
    outcome = call_main(scores.main, run_dir, "--image-scores", path)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert f"{path}: has no probability of 7 images, image-1 among them" in outcome.err
    assert listing(tmp_path) == before
