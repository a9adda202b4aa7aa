"""The numbers behind the figures by hand, the figures themselves, and the command."""

import math
import shutil

import numpy as np
import pytest

from src.datasets.annotations import Record, read_records
from src.datasets.data_folder import DataFolder
from src.datasets.detection_dataset import TrainingDataset
from src.datasets.sample_options import AUGMENTATION_LEVELS, SampleOptions
from src.radiographs.dicom import read_image
from src.structures import CLASS_NAMES
from src.visualizations.eda import FIGURES, draw_figures, main
from src.visualizations.eda_example import Subject
from src.visualizations.eda_images import (
    GROWTH_ANGLES,
    HULL_LOOKS,
    N_DRAWS,
    SAMPLE_SIZE,
    describe_level,
    hull_growth,
)
from src.visualizations.eda_labels import count_boxes, count_classes, cover_shares
from tests.image_folders import image_folder
from tests.paths import ROOT

NOT_NORMAL, NORMAL, OPACITY = 0, 1, 2
WITHOUT_IMAGES = ("class_counts", "boxes_per_image", "box_maps", "rotation_growth")
WITH_IMAGES = ("examples", "augmentation", "rotation_example")
SQUARE = np.array([[300.0, 400.0, 90.0, 90.0]])


def make_record(patient_id, category, *boxes_xywh):
    return Record(patient_id, category, np.array(boxes_xywh, dtype=np.float64).reshape(-1, 4))


RECORDS = [
    make_record("a", NORMAL),
    make_record("b", OPACITY, (0, 0, 100, 200), (500, 0, 100, 200)),
    make_record("c", NOT_NORMAL),
    make_record("d", NORMAL),
    make_record("e", OPACITY, (100, 100, 300, 400), (500, 100, 300, 400), (600, 700, 50, 60)),
    make_record("f", NORMAL),
]


def make_subject(folder, records=None, *, level=20, seed=0, patient_id=None):
    folder = DataFolder(folder)
    records = read_records(folder) if records is None else records
    return Subject(folder=folder, records=records, level=level, seed=seed, patient_id=patient_id)


@pytest.fixture
def labels_only(phantoms, tmp_path):
    """Return a copy of the phantoms' labels, without images."""
    folder = tmp_path / "labels"
    folder.mkdir()
    for path in phantoms.glob("*.csv"):
        shutil.copy2(path, folder)
    return folder


def texts_of(axes):
    return [text.get_text() for text in axes.texts]


def bar_lengths(axes):
    (bars,) = axes.containers
    return [bar.get_width() for bar in bars]


def points_of(line):
    return np.asarray(line.get_xydata())


def values_of(shown):
    """The numbers behind an image or a mesh."""
    return np.ma.asarray(shown.get_array())


def box_of(patch):
    """The xyxy of an outline that is a box."""
    corners = patch.get_xy()
    assert len(np.unique(corners, axis=0)) == 4
    return [*corners.min(axis=0), *corners.max(axis=0)]


def test_classes_are_counted_in_the_order_of_their_names():
    assert count_classes(RECORDS) == [1, 3, 2]
    assert count_classes(RECORDS[:1]) == [0, 1, 0]


def test_boxes_per_image_are_counted_with_gaps():
    assert count_boxes(RECORDS) == [4, 0, 1, 1]
    assert count_boxes(RECORDS[:1]) == [1]


def test_cover_shares_of_two_boxes_by_hand():
    boxes_xywh = np.array([[0.0, 1.0, 2.0, 3.0], [1.0, 0.0, 3.0, 2.0]])
    expected = np.array([[0, 1, 1, 1], [1, 2, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]]) / 2
    np.testing.assert_array_equal(cover_shares(boxes_xywh, (4, 4)), expected)


def test_cover_shares_equal_a_count_at_every_pixel():
    rng = np.random.default_rng(0)
    corner = rng.integers(0, 20, (50, 2))
    boxes_xywh = np.concatenate([corner, rng.integers(1, 13, (50, 2))], axis=1).astype(float)
    expected = np.zeros((32, 32))
    for x, y, width, height in boxes_xywh.astype(int):
        expected[y : y + height, x : x + width] += 1 / 50
    np.testing.assert_allclose(cover_shares(boxes_xywh, (32, 32)), expected, atol=1e-12)


def test_the_hull_of_a_turned_square_by_hand():
    angles = np.array([0.0, 10.0, 30.0])
    cos, sin = np.cos(np.radians(angles)), np.sin(np.radians(angles))
    corners, thirds = (hull_growth(SQUARE, angles, points) for points in ("corners", "thirds"))
    np.testing.assert_allclose(corners[:, 0], (cos + sin) ** 2)
    np.testing.assert_allclose(thirds[:, 0], (cos + sin / 3) ** 2)


def test_the_hull_of_a_long_box_by_hand():
    box = np.array([[10.0, 20.0, 100.0, 300.0]])
    cos, sin = math.cos(math.radians(6)), math.sin(math.radians(6))
    ((corners,),) = hull_growth(box, np.array([6.0]), "corners")
    ((thirds,),) = hull_growth(box, np.array([6.0]), "thirds")
    assert corners == pytest.approx((100 * cos + 300 * sin) * (300 * cos + 100 * sin) / 30_000)
    # The upper left point at a third of the left edge goes furthest, 150 / 3 above the middle.
    assert thirds == pytest.approx((100 * cos + 100 * sin) * (300 * cos + 100 / 3 * sin) / 30_000)


def test_hull_growth_has_a_row_for_each_angle():
    boxes = np.repeat(SQUARE, 3, axis=0)
    assert hull_growth(boxes, np.array([0.0, 5.0]), "corners").shape == (2, 3)


def test_a_level_is_described_by_what_it_does():
    assert describe_level(1) == "the shift alone"
    assert describe_level(10) == "scale 0.1, angle 5, shear 2.5, gamma 0.2"
    assert describe_level(15).endswith("blur sigma 1, noise p 0.25, noise sigma 0.02, 8 bit")
    assert "angle" not in describe_level(21)


def test_class_counts_are_written_beside_their_bars(tmp_path):
    (axes,) = FIGURES["class_counts"](make_subject(tmp_path, RECORDS)).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert dict(zip(names, texts_of(axes), strict=True)) == {
        CLASS_NAMES[NORMAL]: "3  (50.0 %)",
        CLASS_NAMES[NOT_NORMAL]: "1  (16.7 %)",
        CLASS_NAMES[OPACITY]: "2  (33.3 %)",
    }
    assert bar_lengths(axes) == [3, 1, 2]
    assert axes.yaxis_inverted()  # the first is at the top


def test_boxes_per_image_are_written_beside_their_bars(tmp_path):
    (axes,) = FIGURES["boxes_per_image"](make_subject(tmp_path, RECORDS)).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["no boxes", "1 box", "2 boxes", "3 boxes"]
    assert bar_lengths(axes) == [4, 0, 1, 1]
    assert axes.get_title(loc="left") == "5 boxes on 6 images"


def test_a_small_share_is_not_written_as_none(tmp_path):
    records = [RECORDS[1]] + [RECORDS[0]] * 2999
    (axes,) = FIGURES["boxes_per_image"](make_subject(tmp_path, records)).axes
    assert texts_of(axes) == ["2,999  (100.0 %)", "0  (0.0 %)", "1  (<0.1 %)"]


def test_box_maps_show_place_and_size(tmp_path):
    place, size = FIGURES["box_maps"](make_subject(tmp_path, RECORDS)).axes
    shares = values_of(place.images[0])
    assert shares[50, 50] == pytest.approx(20)  # one box of five
    assert shares[150, 550] == pytest.approx(40)
    assert shares[50, 450] == 0
    counts = values_of(size.collections[0]).reshape(32, 32)  # rows are heights, 32 pixels each
    assert counts[200 // 32, 100 // 32] == 2
    assert counts[400 // 32, 300 // 32] == 2
    assert counts[60 // 32, 50 // 32] == 1
    assert counts.count() == 3  # the others stay white
    assert "median 100 × 200" in texts_of(size)


def test_rotation_growth_draws_the_median_and_the_spread_of_the_level(tmp_path):
    (axes,) = FIGURES["rotation_growth"](make_subject(tmp_path, RECORDS, level=10)).axes
    *medians, spread = axes.lines
    boxes = np.concatenate([record.boxes_xywh for record in RECORDS])
    for line, points in zip(medians, HULL_LOOKS, strict=True):
        growth = np.median(hull_growth(boxes, GROWTH_ANGLES, points), axis=1)
        np.testing.assert_allclose(points_of(line)[:, 1], growth)
        assert f"{points} × {growth[-1]:.2f}" in texts_of(axes)
    assert (points_of(spread)[:, 0] == AUGMENTATION_LEVELS[10].angle).all()
    assert " s.d. of level 10: 5°" in texts_of(axes)


def test_rotation_growth_of_a_level_that_does_not_turn_has_no_spread(tmp_path):
    (axes,) = FIGURES["rotation_growth"](make_subject(tmp_path, RECORDS, level=21)).axes
    assert len(axes.lines) == 2


def test_examples_show_each_class_with_its_boxes(phantoms):
    subject = make_subject(phantoms)
    by_id = {record.patient_id: record for record in subject.records}
    panels = FIGURES["examples"](subject).axes
    categories = [by_id[axes.get_xlabel()].category for axes in panels]
    assert categories == [NORMAL, NOT_NORMAL, OPACITY]
    for axes in panels:
        record = by_id[axes.get_xlabel()]
        assert axes.get_title(loc="left") == CLASS_NAMES[record.category]
        image = read_image(subject.images.image_path(record.patient_id))
        np.testing.assert_array_equal(values_of(axes.images[0]), image)
        assert list(axes.images[0].get_extent()) == [0, 1024, 1024, 0]  # the frame of the boxes
        corner, size = np.split(record.boxes_xywh, 2, axis=1)
        boxes_xyxy = np.concatenate([corner, corner + size], axis=1)
        assert [box_of(patch) for patch in axes.patches] == boxes_xyxy.tolist()
    assert panels[2].patches


def test_examples_leave_out_a_class_that_is_not_there(phantoms):
    records = [r for r in make_subject(phantoms).records if r.category != NORMAL]
    panels = FIGURES["examples"](make_subject(phantoms, records)).axes
    titles = [axes.get_title(loc="left") for axes in panels]
    assert titles == [CLASS_NAMES[NOT_NORMAL], CLASS_NAMES[OPACITY]]


def test_the_patient_is_shown_where_it_belongs(phantoms):
    last = [r for r in make_subject(phantoms).records if r.category == NORMAL][-1]
    subject = make_subject(phantoms, patient_id=last.patient_id)
    assert FIGURES["examples"](subject).axes[0].get_xlabel() == last.patient_id
    assert subject.shown_record() is next(
        r for r in subject.records if r.patient_id == last.patient_id
    )


def test_the_seed_chooses_the_image():
    records = [make_record(str(i), OPACITY, (1, 2, 3, 4)) for i in range(50)]
    chosen = [make_subject(ROOT, records, seed=seed).shown_record() for seed in (0, 0, 1, 2, 3)]
    assert chosen[0] is chosen[1]
    assert len({record.patient_id for record in chosen}) > 1


def test_an_image_with_boxes_is_preferred():
    shown = {make_subject(ROOT, RECORDS, seed=seed).shown_record().patient_id for seed in range(20)}
    assert shown == {"b", "e"}
    assert len(make_subject(ROOT, RECORDS[2:4]).shown_record().boxes_xywh) == 0


def test_augmentation_shows_what_training_sees(phantoms):
    subject = make_subject(phantoms, level=15, seed=3)
    panels = FIGURES["augmentation"](subject).axes
    assert len(panels) == 1 + N_DRAWS
    options = SampleOptions(img_size=SAMPLE_SIZE, augmentation_level=15, seed=3)
    source = image_folder(subject.folder.images_dir("train"))
    training = TrainingDataset([subject.shown_record()], source, options)
    for epoch, axes in enumerate(panels[1:]):
        sample = training[epoch, 0]
        np.testing.assert_array_equal(values_of(axes.images[0]), sample.picture())
        drawn = [box_of(patch) for patch in axes.patches]
        np.testing.assert_allclose(drawn, sample.target.boxes_xyxy.numpy(), rtol=1e-6)
    image = read_image(subject.images.image_path(subject.shown_record().patient_id))
    np.testing.assert_array_equal(values_of(panels[0].images[0]), image[::2, ::2])


def test_rotation_example_draws_both_hulls_of_the_largest_box(phantoms):
    subject = make_subject(phantoms)
    width, height = max(
        subject.shown_record().boxes_xywh[:, 2:].tolist(), key=lambda size: size[0] * size[1]
    )
    scale = SAMPLE_SIZE / (1.5 * max(width, height))
    for axes, angle in zip(FIGURES["rotation_example"](subject).axes, (0, 4, 8, 12), strict=True):
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        thirds, corners, turned = (np.array(box_of(patch)) for patch in axes.patches)
        for box, share in ((thirds, 1 / 3), (corners, 1), (turned, 1)):
            expected = np.array(
                [width * cos + share * height * sin, height * cos + share * width * sin]
            )
            np.testing.assert_allclose(box[2:] - box[:2], scale * expected)
            np.testing.assert_allclose((box[2:] + box[:2]) / 2, SAMPLE_SIZE / 2)
        growth = np.prod(corners[2:] - corners[:2]) / (width * height * scale**2)
        assert texts_of(axes)[1] == f"corners × {growth:.2f}"


def test_the_command_writes_every_figure_twice(phantoms, tmp_path, call_main):
    out = tmp_path / "new folder" / "eda"
    outcome = call_main(main, "--data-dir", phantoms, "--out", out, "--level", "10")
    expected = {f"{name}{ending}" for name in FIGURES for ending in (".png", ".pdf")}
    assert {path.name for path in out.iterdir()} == expected
    assert set(outcome.out.splitlines()) == {str(path) for path in out.iterdir()}
    assert outcome.err == ""
    assert set(WITHOUT_IMAGES) | set(WITH_IMAGES) == set(FIGURES)
    for path in out.iterdir():
        start = b"\x89PNG" if path.suffix == ".png" else b"%PDF"
        assert path.read_bytes().startswith(start)
        assert path.stat().st_size > 5000
        assert b"/Type3" not in path.read_bytes()  # fonts that journals refuse


@pytest.mark.parametrize("has_folder", [False, True], ids=["no folder", "an empty folder"])
def test_without_images_the_other_figures_are_drawn_and_the_rest_is_named(
    has_folder, labels_only, tmp_path, call_main, recwarn
):
    if has_folder:
        (labels_only / "train").mkdir()
    out = tmp_path / "out"
    outcome = call_main(main, "--data-dir", labels_only, "--out", out)
    assert outcome.code == 0
    assert {path.stem for path in out.iterdir()} == set(WITHOUT_IMAGES)
    named = [str(warning.message).split(" is left out: ")[0] for warning in recwarn]
    assert tuple(named) == WITH_IMAGES


def test_an_image_that_was_asked_for_must_be_there(labels_only, tmp_path, call_main):
    out = tmp_path / "out"
    arguments = ("--data-dir", labels_only, "--out", out, "--only", "class_counts", "examples")
    outcome = call_main(main, *arguments)
    assert outcome.code == 2
    (line,) = outcome.errors()
    assert line.startswith(f"error: {labels_only}")
    assert not out.exists()


def test_only_the_figures_asked_for_are_written(labels_only, tmp_path, call_main):
    out = tmp_path / "out"
    assert call_main(main, "--data-dir", labels_only, "--out", out, "--only", "box_maps").code == 0
    assert {path.name for path in out.iterdir()} == {"box_maps.png", "box_maps.pdf"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--level", "7"], "unknown level 7; one of 1, 10, 11, 15, 20, 21"),
        (["--seed", "-1"], "--seed: -1 is less than 0"),
        (["--patient", "nobody"], "has no patient nobody"),
        (["--only", "class_count"], "invalid choice: 'class_count'"),
        (["--data-dir", "/no/such/folder"], "/no/such/folder: no such data folder"),
    ],
)
def test_a_mistake_ends_with_one_line(arguments, words, phantoms, tmp_path, call_main):
    out = tmp_path / "out"
    outcome = call_main(main, "--data-dir", phantoms, "--out", out, *arguments)
    assert outcome.code == 2
    (line,) = outcome.errors()
    assert line.startswith("error: ")
    assert words in line
    assert not out.exists()


def test_a_patient_without_boxes_cannot_be_turned(phantoms, tmp_path, call_main):
    patient = next(r.patient_id for r in make_subject(phantoms).records if r.category == NORMAL)
    arguments = ("--data-dir", phantoms, "--out", tmp_path / "out", "--patient", patient)
    outcome = call_main(main, *arguments, "--only", "rotation_example")
    assert outcome.code == 2
    assert outcome.errors() == [f"error: patient {patient} has no box to turn"]


@pytest.mark.filterwarnings("ignore:.* is left out")
def test_labels_without_boxes_leave_the_maps_out(tmp_path, call_main):
    (tmp_path / "stage_2_train_labels.csv").write_text(
        "patientId,x,y,width,height,Target\na,,,,,0\nb,,,,,0\n"
    )
    (tmp_path / "stage_2_detailed_class_info.csv").write_text(
        "patientId,class\na,Normal\nb,Normal\n"
    )
    outcome = call_main(main, "--data-dir", tmp_path, "--out", tmp_path / "out")
    assert outcome.code == 0
    assert {path.stem for path in (tmp_path / "out").iterdir()} == {
        "class_counts",
        "boxes_per_image",
    }


@pytest.mark.filterwarnings("error")
def test_a_single_box_is_enough_for_the_maps(tmp_path):
    figures = draw_figures(
        make_subject(tmp_path, [make_record("a", OPACITY, (1, 2, 30, 40))]), WITHOUT_IMAGES
    )
    for figure in figures.values():
        figure.savefig(tmp_path / "figure.png")
    size = figures["box_maps"].axes[1]
    assert size.collections[0].get_clim() == (1, 10)  # a scale with ticks
