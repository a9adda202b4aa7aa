import cv2
import numpy as np
import pytest
import torch

from scripts.phantoms import NORMAL, draw_phantom
from src.datasets.annotations import Record, read_records
from src.datasets.augmentations import draw_crop
from src.datasets.data_folder import DataFolder
from src.datasets.detection_dataset import (
    EpochSampler,
    TrainingDataset,
    ValidationDataset,
    shrink_image,
)
from src.datasets.sample_options import AUGMENTATION_LEVELS, SampleOptions
from src.datasets.test_dataset import TestDataset
from src.datasets.transforms import warp_image
from src.radiographs.dicom import read_image
from src.radiographs.image_index import ImageFile
from src.radiographs.pixels import as_float
from src.structures import OPACITY, ShownArea, images_as_float
from tests.datasets.conftest import IMAGE_SIZE, LANDSCAPE, LANDSCAPE_SIZE, N_TRAIN
from tests.dicom_files import write_dicom
from tests.image_folders import image_folder

SIZE = 64


def source_of(folder):
    return image_folder(folder.images_dir("train"))


def make_training(data_dir, **options):
    folder = DataFolder(data_dir)
    sample_options = SampleOptions(img_size=SIZE, **options)
    return TrainingDataset(read_records(folder), source_of(folder), sample_options)


def make_validation(data_dir, **options):
    folder = DataFolder(data_dir)
    sample_options = SampleOptions(img_size=SIZE, **options)
    return ValidationDataset(read_records(folder), source_of(folder), sample_options)


def single(tmp_path, boxes_xywh, **options):
    """Return a training set of one image, black with white boxes."""
    pixels = np.zeros((256, 256), np.uint8)
    for x, y, w, h in boxes_xywh:
        pixels[y : y + h, x : x + w] = 255
    write_dicom(tmp_path / "a.dcm", pixels)
    record = Record("a", OPACITY, np.array(boxes_xywh, float).reshape(-1, 4))
    return TrainingDataset([record], image_folder(tmp_path), SampleOptions(**options))


class Given:
    """A source that has one image under any name."""

    def __init__(self, pixels):
        self.pixels = pixels

    def read(self, patient_id, *, grey="viewer"):
        return self.pixels.copy()


def bright_hull(image):
    """Return xyxy of the pixels above 1/2, their far edges included."""
    rows, columns = np.nonzero(np.asarray(image) > 0.5)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def equal(sample, other):
    return torch.equal(sample.image, other.image) and torch.equal(
        sample.target.boxes_xyxy, other.target.boxes_xyxy
    )


# Training samples


@pytest.mark.parametrize("level", sorted(AUGMENTATION_LEVELS))
def test_training_sample_depends_on_seed_epoch_and_index_alone(data_dir, level):
    options = {"augmentation_level": level, "hflip": True, "seed": 9}
    dataset = make_training(data_dir, **options)
    dataset[0, 1], dataset[4, 5]  # others before it change nothing
    np.random.seed(1)
    cv2.setRNGSeed(1)
    torch.manual_seed(1)
    assert equal(dataset[2, 7], make_training(data_dir, **options)[2, 7])


def test_training_sample_differs_between_epochs_and_seeds(data_dir):
    dataset, other = make_training(data_dir, seed=1), make_training(data_dir, seed=2)
    assert not equal(dataset[0, 7], dataset[1, 7])
    assert not equal(dataset[0, 7], other[0, 7])


def test_training_sample_differs_between_indices_of_the_same_image(data_dir):
    folder = DataFolder(data_dir)
    records = [read_records(folder)[1]] * 3
    dataset = TrainingDataset(records, source_of(folder), SampleOptions(img_size=SIZE))
    assert not equal(dataset[0, 0], dataset[0, 1])
    assert not equal(dataset[1, 0], dataset[0, 1])


def test_training_sample_has_shapes_types_and_names(data_dir):
    sample = make_training(data_dir)[0, 1]
    assert sample.image.shape == (1, SIZE, SIZE)
    assert sample.target.boxes_xyxy.shape == (1, 4)
    assert sample.target.boxes_xyxy.dtype == torch.float32
    assert (sample.patient_id, sample.target.category) == ("p01", OPACITY)
    assert sample.file_size == (IMAGE_SIZE, IMAGE_SIZE)


@pytest.mark.parametrize(
    ("level", "dtype"),
    [(1, torch.float32), (10, torch.float32), (11, torch.float32)]
    + [(level, torch.uint8) for level in (15, 20, 21)],
)
def test_training_sample_is_of_8_bits_where_its_level_is(data_dir, level, dtype):
    assert make_training(data_dir, augmentation_level=level)[0, 1].image.dtype == dtype


def test_training_sample_of_floats_is_warped_as_floats(data_dir):
    sample = make_training(data_dir, augmentation_level=1, reduction="subsample")[0, 1]
    source = read_image(data_dir / "stage_2_train_images" / "p01.dcm")
    rng = np.random.default_rng((0, 0, 1))
    crop = draw_crop(source.shape, SIZE, AUGMENTATION_LEVELS[1], rng)
    np.testing.assert_array_equal(sample.image[0], warp_image(source, crop))


def test_training_sample_of_a_negative_image_has_an_empty_table_of_boxes(data_dir):
    target = make_training(data_dir)[0, 2].target
    assert (target.boxes_xyxy.shape, target.boxes_xyxy.dtype) == ((0, 4), torch.float32)
    assert target.category == 1


@pytest.mark.parametrize("hflip", [False, True])
@pytest.mark.parametrize("level", [1, 10, 11])
def test_training_sample_has_its_boxes_where_its_pixels_are(tmp_path, level, hflip):
    options = {"img_size": 128, "augmentation_level": level, "hflip": hflip}
    dataset = single(tmp_path, [(90, 100, 60, 44)], **options, box_points="corners")
    for epoch in range(12):
        sample = dataset[epoch, 0]
        # Pixels have an extent, points have none: hull and box agree to about a pixel.
        np.testing.assert_allclose(
            sample.target.boxes_xyxy[0], bright_hull(sample.picture()), rtol=0, atol=1.6
        )


def test_training_samples_are_mirrored_if_asked(tmp_path):
    dataset = single(tmp_path, [(30, 100, 40, 60)], img_size=128, augmentation_level=1, hflip=True)
    sides = [(dataset[epoch, 0].target.boxes_xyxy[0, 0] > 64).item() for epoch in range(24)]
    assert set(sides) == {False, True}


def test_training_samples_take_the_box_points_asked_for(tmp_path):
    boxes, level = [(90, 90, 80, 80)], {"img_size": 128, "augmentation_level": 10}
    thirds = single(tmp_path, boxes, **level)[3, 0].target.boxes_xyxy
    corners = single(tmp_path, boxes, **level, box_points="corners")[3, 0].target.boxes_xyxy
    assert (corners[0, 2:] - corners[0, :2]).prod() > (thirds[0, 2:] - thirds[0, :2]).prod()


def test_training_samples_are_clipped_only_if_asked(tmp_path):
    boxes, level = [(0, 0, 200, 200)], {"img_size": 128, "augmentation_level": 1}
    free = single(tmp_path, boxes, **level)
    clipped = single(tmp_path, boxes, **level, clip_boxes=True)
    plain = torch.cat([free[epoch, 0].target.boxes_xyxy for epoch in range(8)])
    cut = torch.cat([clipped[epoch, 0].target.boxes_xyxy for epoch in range(8)])
    assert plain.min() < 0
    torch.testing.assert_close(cut, plain.clamp(0, 128))


def test_training_samples_lose_boxes_wholly_outside(tmp_path):
    dataset = single(
        tmp_path, [(0, 0, 3, 3), (120, 120, 30, 30)], img_size=64, augmentation_level=1
    )
    counts = {len(dataset[epoch, 0].target.boxes_xyxy) for epoch in range(24)}
    assert counts == {1, 2}


def test_training_sample_keeps_the_size_of_a_landscape(data_dir):
    dataset = make_training(data_dir, augmentation_level=1)
    index = [record.patient_id for record in dataset.records].index(LANDSCAPE)
    sample = dataset[0, index]
    assert sample.file_size == LANDSCAPE_SIZE
    assert sample.image.shape == (1, SIZE, SIZE)
    shift = (32 * SIZE / 500, 32 * SIZE / 300) * 2
    error = np.abs(sample.target.boxes_xyxy[0].numpy() - (SIZE / 2, 0, SIZE, SIZE))
    assert np.all(error <= np.array(shift) + 1e-4)


def test_training_samples_are_drawn_around_the_central_square(tmp_path):
    options = {"img_size": 96, "augmentation_level": 1, "shown": ShownArea(source_crop=192)}
    sample = single(tmp_path, [(112, 112, 32, 32)], **options)[0, 0]
    assert sample.file_size == (256, 256)
    box = sample.target.boxes_xyxy[0]
    np.testing.assert_allclose(box[2:] - box[:2], 16, rtol=0, atol=1e-4)
    np.testing.assert_allclose(box, bright_hull(sample.picture()), rtol=0, atol=1)


@pytest.mark.parametrize("level", [1, 10])
def test_training_samples_of_a_landscape_are_padded_if_asked(data_dir, level):
    dataset = make_training(data_dir, augmentation_level=level, shown=ShownArea(fit="pad"))
    index = [record.patient_id for record in dataset.records].index(LANDSCAPE)
    for epoch in range(5):
        sample = dataset[epoch, index]
        hull = bright_hull(sample.picture())
        box = sample.target.boxes_xyxy[0].clamp(0, SIZE)
        np.testing.assert_allclose(box, hull, rtol=0, atol=1 if level == 1 else 4)


def test_training_dataset_has_the_length_of_its_records(data_dir):
    assert len(make_training(data_dir)) == len(make_validation(data_dir)) == N_TRAIN


# Validation samples


def test_validation_sample_is_every_second_pixel(data_dir):
    sample = make_validation(data_dir, reduction="subsample")[1]
    source = read_image(data_dir / "stage_2_train_images" / "p01.dcm")
    np.testing.assert_array_equal(sample.picture(), source[::2, ::2])
    assert sample.image.dtype == torch.uint8


def test_validation_sample_is_the_mean_over_areas_if_asked(data_dir):
    sample = make_validation(data_dir, reduction="area")[1]
    source = read_image(data_dir / "stage_2_train_images" / "p01.dcm")
    blocks = source.reshape(SIZE, 2, SIZE, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(sample.picture(), blocks, rtol=0, atol=1e-6)


def test_validation_sample_has_its_boxes_where_its_pixels_are(data_dir):
    for i in (1, 5, 7):
        sample = make_validation(data_dir)[i]
        np.testing.assert_array_equal(sample.target.boxes_xyxy[0], bright_hull(sample.picture()))


def test_validation_sample_of_a_landscape_fills_the_square(data_dir):
    dataset = make_validation(data_dir)
    index = [record.patient_id for record in dataset.records].index(LANDSCAPE)
    sample = dataset[index]
    assert sample.file_size == LANDSCAPE_SIZE
    assert sample.image.shape == (1, SIZE, SIZE)
    np.testing.assert_allclose(sample.target.boxes_xyxy, [[32, 0, 64, 64]], rtol=0, atol=1e-5)
    np.testing.assert_allclose(bright_hull(sample.picture()), [32, 0, 64, 64], atol=1)


def test_validation_sample_of_a_landscape_is_padded_if_asked(data_dir):
    dataset = make_validation(data_dir, shown=ShownArea(fit="pad"))
    index = [record.patient_id for record in dataset.records].index(LANDSCAPE)
    sample = dataset[index]
    top = (SIZE - SIZE * LANDSCAPE_SIZE[0] / LANDSCAPE_SIZE[1]) / 2
    expected = [SIZE / 2, top, SIZE, SIZE - top]
    np.testing.assert_allclose(sample.target.boxes_xyxy, [expected], rtol=0, atol=1e-5)
    np.testing.assert_allclose(bright_hull(sample.picture()), expected, atol=1)
    rows = np.arange(SIZE)
    assert not sample.picture()[(rows < top - 1) | (rows > SIZE - top)].any()


def test_validation_sample_of_a_negative_image_has_an_empty_table_of_boxes(data_dir):
    target = make_validation(data_dir)[0].target
    assert target.boxes_xyxy.shape == (0, 4)
    assert target.category == 0


@pytest.mark.parametrize("reduction", ["subsample", "area"])
def test_validation_sample_shows_the_central_square_if_asked(data_dir, reduction):
    sample = make_validation(data_dir, shown=ShownArea(source_crop=SIZE), reduction=reduction)[1]
    source = read_image(data_dir / "stage_2_train_images" / "p01.dcm")
    edge = (IMAGE_SIZE - SIZE) // 2
    centre = source[edge : edge + SIZE, edge : edge + SIZE]
    np.testing.assert_array_equal(sample.picture(), centre)
    np.testing.assert_array_equal(
        sample.target.boxes_xyxy[0].clamp(0, SIZE), bright_hull(sample.picture())
    )


def test_validation_sample_does_not_depend_on_augmentation(data_dir):
    plain = make_validation(data_dir)[1]
    other = make_validation(data_dir, seed=5, augmentation_level=20, hflip=True)[1]
    assert equal(plain, other)


def test_shrink_image_mixes_pixels_of_8_bits_as_floats():
    image = np.random.default_rng(0).integers(0, 256, (300, 500)).astype(np.uint8)
    shrunk = shrink_image(image, 48)
    assert shrunk.dtype == np.float32
    np.testing.assert_array_equal(shrunk, shrink_image(as_float(image), 48))


@pytest.mark.parametrize(("size", "step"), [(128, 1), (64, 2), (32, 4)])
def test_shrink_image_takes_whole_pixels_of_8_bits_as_they_are(size, step):
    image = np.random.default_rng(0).integers(0, 256, (128, 128)).astype(np.uint8)
    shrunk = shrink_image(image, size)
    np.testing.assert_array_equal(shrunk, image[::step, ::step])
    assert shrunk.dtype == np.uint8
    assert shrunk.flags.owndata


@pytest.mark.parametrize("reduction", ["subsample", "area"])
def test_shrink_image_gives_a_square_of_float32(reduction):
    image = np.random.default_rng(0).random((300, 500), dtype=np.float32)
    shrunk = shrink_image(image, 48, reduction)
    assert shrunk.shape == (48, 48)
    assert shrunk.dtype == np.float32
    assert shrunk.min() >= 0
    assert shrunk.max() <= 1


@pytest.mark.parametrize("reduction", ["subsample", "area"])
def test_shrink_image_takes_a_single_pixel(reduction):
    for source_crop in (None, 1024):
        image = np.full((1, 1), 7, np.uint8)
        shown = ShownArea(source_crop=source_crop)
        assert shrink_image(image, 64, reduction, shown).shape == (64, 64)


def test_shrink_image_averages_the_areas_of_a_landscape():
    image = np.random.default_rng(0).random((300, 500), dtype=np.float32)
    blocks = image.reshape(100, 3, 100, 5).mean(axis=(1, 3))
    np.testing.assert_allclose(shrink_image(image, 100, "area"), blocks, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "source_crop"), [(256, None), (512, None), (1024, None), (256, 512), (512, 512)]
)
def test_auto_shrinks_the_challenges_images_as_the_original(size, source_crop):
    image = np.random.default_rng(0).integers(0, 256, (1024, 1024)).astype(np.uint8)
    shown = ShownArea(source_crop=source_crop)
    expected = shrink_image(image, size, "subsample", shown)
    found = shrink_image(image, size, "auto", shown)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("shape", "size"), [((3000, 2500), 512), ((1024, 1024), 192)])
def test_auto_shrinks_all_others_by_area(shape, size):
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    found = shrink_image(image, size, "auto")
    np.testing.assert_array_equal(found, shrink_image(image, size, "area"))
    assert found.std() < 0.6 * shrink_image(image, size, "subsample").std()


def test_a_noisy_large_image_shrinks_to_nearly_the_same_as_without_noise():
    rng = np.random.default_rng(0)
    phantom = draw_phantom(rng, NORMAL, view="PA", sex="M").pixels
    large = cv2.resize(phantom / np.float32(255), (2500, 3000), interpolation=cv2.INTER_CUBIC)
    noisy = (large + rng.normal(0, 0.1, large.shape)).astype(np.float32)
    errors = {
        reduction: np.abs(shrink_image(noisy, 512, reduction) - shrink_image(large, 512, "area"))
        for reduction in ("subsample", "auto")
    }
    assert errors["auto"].mean() < 0.3 * errors["subsample"].mean()
    assert errors["auto"].mean() < 0.02


@pytest.mark.parametrize("level", [1, 20])
def test_a_training_sample_of_a_large_image_is_reduced_by_area(level):
    pixels = np.random.default_rng(0).integers(0, 256, (1500, 1250)).astype(np.uint8)
    record = Record("p", 2, np.array([[500.0, 400.0, 300.0, 600.0]]))
    samples = {
        reduction: TrainingDataset(
            [record], Given(pixels),
            SampleOptions(img_size=128, augmentation_level=level, reduction=reduction),
        )[(0, 0)]
        for reduction in ("subsample", "auto")
    }  # fmt: skip
    spreads = {name: float(images_as_float(s.image).std()) for name, s in samples.items()}
    assert spreads["auto"] < 0.6 * spreads["subsample"]
    boxes = [sample.target.boxes_xyxy for sample in samples.values()]
    assert torch.equal(*boxes)
    assert samples["auto"].file_size == (1500, 1250)


@pytest.mark.parametrize("size", [256, 512])
def test_a_training_sample_of_the_challenges_is_the_same_by_auto(size):
    pixels = np.random.default_rng(0).integers(0, 256, (1024, 1024)).astype(np.uint8)
    record = Record("p", 2, np.array([[500.0, 400.0, 300.0, 600.0]]))
    plain, auto = (
        TrainingDataset([record], Given(pixels), SampleOptions(img_size=size, reduction=reduction))[
            (0, 0)
        ]
        for reduction in ("subsample", "auto")
    )
    assert equal(plain, auto)


@pytest.mark.parametrize("grey", ["viewer", "range"])
def test_samples_show_grey_values_by_the_rule_of_the_options(tmp_path, grey):
    pixels = np.tile(np.arange(1024, dtype=np.uint16), (1024, 1))
    path = write_dicom(tmp_path / "p.dcm", pixels, WindowCenter="200", WindowWidth="100")
    source, options = image_folder(tmp_path), SampleOptions(img_size=512, grey=grey)
    record = Record("p", OPACITY, np.zeros((0, 4)))
    expected = read_image(path, grey=grey)[::2, ::2]
    sample = ValidationDataset([record], source, options)[0]
    np.testing.assert_array_equal(sample.picture(), expected)
    other = TestDataset([ImageFile("p", path)], options)[0]
    np.testing.assert_array_equal(other.picture(), expected)
    train = TrainingDataset([record], source, options)[(0, 0)].picture()
    is_white = (train > 0.999).mean() > 0.5
    assert is_white == (grey == "viewer")


# EpochSampler


def read_epoch(sampler, epoch):
    sampler.epoch = epoch
    return list(sampler)


def test_epoch_sampler_is_a_permutation():
    keys = read_epoch(EpochSampler(40, 8, seed=1), 3)
    assert sorted(keys) == [(3, index) for index in range(40)]
    assert keys != sorted(keys)


def test_epoch_sampler_follows_from_seed_and_epoch():
    sampler = EpochSampler(40, 8, seed=1)
    first = read_epoch(sampler, 0)
    later = read_epoch(sampler, 1)
    assert [index for _, index in first] != [index for _, index in later]
    assert read_epoch(sampler, 0) == first
    assert read_epoch(EpochSampler(40, 8, seed=1), 1) == later
    assert read_epoch(EpochSampler(40, 8, seed=2), 0) != first


@pytest.mark.parametrize(
    ("n_samples", "batch_size", "n_kept"),
    [(43, 8, 40), (40, 8, 40), (8, 8, 8), (5, 8, 5), (1, 2, 1)],
)
def test_epoch_sampler_is_cut_to_whole_batches_but_never_to_nothing(n_samples, batch_size, n_kept):
    sampler = EpochSampler(n_samples, batch_size, seed=0)
    keys = read_epoch(sampler, 0)
    assert len(sampler) == len(keys) == len(set(keys)) == n_kept


def test_epoch_sampler_leaves_out_other_images_in_other_epochs():
    sampler = EpochSampler(43, 8, seed=0)
    left_out = {
        frozenset(range(43)) - {index for _, index in read_epoch(sampler, epoch)}
        for epoch in range(5)
    }
    assert len(left_out) == 5
