"""Draws are many and seeded; bounds are four standard errors or more of what is estimated."""

from dataclasses import astuple, replace

import cv2
import numpy as np
import pytest

from src.datasets.augmentations import augment_pixels, draw_crop
from src.datasets.sample_options import AUGMENTATION_LEVELS, AugmentationLevel
from src.datasets.transforms import warp_image
from src.radiographs.dicom import read_pixels
from src.structures import ShownArea
from tests import plain_ways
from tests.paths import shared

# scale, angle, shear, gamma; salt and pepper p; blur p, sigma; noise p, sigma; through 8 bits
PAPER_LEVELS = {
    1: (0, 0, 0, 0, 0, 0, 0, 0, 0, False),
    10: (0.1, 5, 2.5, 0.2, 0, 0, 0, 0, 0, False),
    11: (0.1, 0, 2.5, 0.2, 0, 0, 0, 0, 0, False),
    15: (0.15, 6, 4, 0.2, 0, 0.25, 1, 0.25, 0.02, True),
    20: (0.15, 6, 4, 0.25, 0.1, 0.5, 2, 0.5, 0.04, True),
    21: (0.15, 0, 4, 0.25, 0.1, 0.5, 2, 0.5, 0.04, True),
}
LEVELS = sorted(PAPER_LEVELS)
EIGHT_BIT_LEVELS = [15, 20, 21]
N_DRAWS = 4000
MAX_SD_ERROR = 4 / np.sqrt(2 * N_DRAWS)  # of a standard deviation, relative


def draw_crops(level, n=N_DRAWS, *, source_size=(1024, 1024), size=512, hflip=False):
    rng = np.random.default_rng(12)
    return [draw_crop(source_size, size, level, rng, hflip=hflip) for _ in range(n)]


def random_image(size=48):
    """Return a smooth picture that reaches 0 and 1."""
    noise = cv2.GaussianBlur(np.random.default_rng(1).random((size, size)), (0, 0), 1.5)
    stretched = (noise - noise.min()) / (noise.max() - noise.min())
    return stretched.astype(np.float32)


def fixed_gamma(exponent):
    """Return a generator whose first number makes gamma `exponent`."""
    rng = np.random.default_rng(0)

    class Fixed:
        random = rng.random

        def normal(self, *_):
            return np.log2(exponent)

    return Fixed()


def changed_share(image, level, n):
    """Return how often `augment_pixels` changes an image."""
    rng = np.random.default_rng(13)
    return np.mean([not np.array_equal(augment_pixels(image, level, rng), image) for _ in range(n)])


def assert_share(found, expected, n):
    assert found == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / n))


def assert_spread(values, expected):
    """Check mean 0 and a standard deviation."""
    assert len(values) >= N_DRAWS
    assert np.std(values) == pytest.approx(expected, rel=MAX_SD_ERROR)
    assert np.mean(values) == pytest.approx(0, abs=4 * expected / np.sqrt(N_DRAWS))


def assert_uncorrelated(values, others):
    correlation = np.corrcoef(np.stack([values, others]))[0, 1]
    assert abs(correlation) < 4 / np.sqrt(len(values))


def test_levels_are_those_of_the_paper():
    table = {number: astuple(AUGMENTATION_LEVELS[number]) for number in PAPER_LEVELS}
    assert table == PAPER_LEVELS


# draw_crop


@pytest.mark.parametrize("number", LEVELS)
def test_draw_crop_stretches_x_and_y_apart(number):
    crops = draw_crops(AUGMENTATION_LEVELS[number])
    scales = np.log2([crop.scale_xy for crop in crops]) + 1  # of 1/2
    expected = PAPER_LEVELS[number][0]
    for along_axis in scales.T:
        assert_spread(along_axis, expected)
    if expected:
        assert_uncorrelated(*scales.T)


@pytest.mark.parametrize("number", LEVELS)
def test_draw_crop_turns_by_the_levels_angle(number):
    angles = [crop.angle for crop in draw_crops(AUGMENTATION_LEVELS[number])]
    assert_spread(angles, PAPER_LEVELS[number][1])


@pytest.mark.parametrize("number", LEVELS)
def test_draw_crop_shears_by_the_levels_angle(number):
    shears = [crop.shear for crop in draw_crops(AUGMENTATION_LEVELS[number])]
    assert_spread(shears, PAPER_LEVELS[number][2])


@pytest.mark.parametrize("number", LEVELS)
@pytest.mark.parametrize(("size", "most"), [((1024, 1024), 32), ((1024, 768), 24),
                                            ((2500, 2048), 64)])  # fmt: skip
def test_draw_crop_shifts_by_up_to_a_share_of_the_shorter_side(number, size, most):
    crops = draw_crops(AUGMENTATION_LEVELS[number], source_size=size)
    shifts = np.array([crop.center_xy for crop in crops]) - (size[1] / 2, size[0] / 2)
    assert np.abs(shifts).max() <= most
    np.testing.assert_allclose(shifts.min(axis=0), -most, atol=0.01 * most)
    np.testing.assert_allclose(shifts.max(axis=0), most, atol=0.01 * most)
    # The standard error of a uniform's standard deviation is .45 of a normal's.
    np.testing.assert_allclose(shifts.std(axis=0), most / np.sqrt(3), rtol=MAX_SD_ERROR)
    assert_uncorrelated(*shifts.T)


def test_draw_crop_mirrors_every_second_sample_if_asked():
    level = AUGMENTATION_LEVELS[10]
    assert not any(crop.hflip for crop in draw_crops(level))
    mirrored = np.mean([crop.hflip for crop in draw_crops(level, hflip=True)])
    assert_share(mirrored, 0.5, N_DRAWS)


def test_draw_crop_squeezes_a_landscape_into_the_square():
    (crop,) = draw_crops(AugmentationLevel(), 1, source_size=(300, 500), size=100)
    assert crop.size == 100
    assert crop.scale_xy == pytest.approx((100 / 500, 100 / 300))
    assert crop.center_xy == pytest.approx((250, 150), abs=32)


def test_draw_crop_draws_around_the_central_square():
    rng = np.random.default_rng(26)
    crop = draw_crop((300, 500), 100, AugmentationLevel(), rng, shown=ShownArea(source_crop=200))
    assert crop.scale_xy == pytest.approx((0.5, 0.5))
    assert crop.center_xy == pytest.approx((250, 150), abs=32)


# augment_pixels


@pytest.mark.parametrize("number", [10, 11, 15, 20, 21])
def test_augment_pixels_draws_the_exponent(number):
    gamma = PAPER_LEVELS[number][3]
    level, rng = AugmentationLevel(gamma=gamma), np.random.default_rng(14)
    assert AUGMENTATION_LEVELS[number].gamma == gamma
    grey = np.full((1, 1), 0.5, np.float32)
    values = [augment_pixels(grey, level, rng).item() for _ in range(N_DRAWS)]
    assert_spread(np.log2(np.log(values) / np.log(0.5)), gamma)


def test_augment_pixels_leaves_level_1_unchanged():
    image = random_image()
    rng = np.random.default_rng(15)
    for _ in range(20):
        np.testing.assert_array_equal(augment_pixels(image, AUGMENTATION_LEVELS[1], rng), image)


@pytest.mark.parametrize("number", LEVELS)
def test_augment_pixels_keeps_type_shape_and_range(number):
    image = random_image()
    rng = np.random.default_rng(16)
    eight_bit = number in EIGHT_BIT_LEVELS
    for _ in range(60):
        changed = augment_pixels(image, AUGMENTATION_LEVELS[number], rng)
        assert changed.shape == image.shape
        assert changed.dtype == (np.uint8 if eight_bit else np.float32)
        assert changed.min() >= 0
        assert changed.max() <= (255 if eight_bit else 1)


@pytest.mark.parametrize("number", LEVELS)
def test_augment_pixels_leaves_its_input_alone(number):
    image = random_image()
    before = image.copy()
    rng = np.random.default_rng(17)
    for _ in range(20):
        augment_pixels(image, AUGMENTATION_LEVELS[number], rng)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("exponent", [1 / 4, 1 / 2, 1, 2, 4])
def test_augment_pixels_cuts_to_whole_levels_behind_gamma(exponent):
    image = np.arange(256, dtype=np.uint8)[None]
    changed = augment_pixels(image, AugmentationLevel(eight_bit=True), fixed_gamma(exponent))
    exact = [255 * (value / 255) ** exponent for value in range(256)]
    expected = image[0] if exponent == 1 else np.floor(np.round(exact, 9))
    np.testing.assert_array_equal(changed[0], expected)


def test_augment_pixels_rounds_floats_to_8_bits_first():
    image = random_image()
    level = AUGMENTATION_LEVELS[15]
    rounded = np.rint(image * 255).astype(np.uint8)
    changed, expected = (
        augment_pixels(pixels, level, np.random.default_rng(30)) for pixels in (image, rounded)
    )
    np.testing.assert_array_equal(changed, expected)


@pytest.mark.parametrize("part", ["blur", "noise"])
def test_augment_pixels_rounds_to_8_bits_once_behind_gamma(part):
    """Blur and noise at 8 bits are those of floats, rounded at the end."""
    image = np.rint(random_image() * 255).astype(np.uint8)
    parts = {
        "blur": {"blur_p": 1.0, "blur_sigma": 2.0},
        "noise": {"noise_p": 1.0, "noise_sigma": 0.2},
    }
    for seed in range(20):
        changed, exact = (
            augment_pixels(image, AugmentationLevel(eight_bit=eight_bit, **parts[part]), rng)
            for eight_bit, rng in zip(
                (True, False), map(np.random.default_rng, (seed, seed)), strict=True
            )
        )
        np.testing.assert_array_equal(changed, np.rint(exact.clip(0, 1) * 255))


def test_augment_pixels_stays_close_to_the_plain_way_on_a_real_image():
    path = sorted((shared("lungs") / "train").iterdir())[7]
    pixels = read_pixels(path)
    level = replace(AUGMENTATION_LEVELS[20], noise_p=0.0, salt_and_pepper_p=0.0)
    errors = []
    for seed in range(6):
        crop = draw_crop(pixels.shape, 512, level, np.random.default_rng(seed))
        rngs = [np.random.default_rng(seed) for _ in range(2)]
        found = augment_pixels(warp_image(pixels, crop), level, rngs[0])
        plain = plain_ways.warp_image(pixels / 255, crop)
        errors.append(found - plain_ways.augment_pixels(plain, level, rngs[1]))
    assert abs(np.mean(errors)) < 0.1
    assert np.mean(np.abs(errors)) < 0.25
    assert np.mean(np.abs(errors) > 1) < 0.001


def test_augment_pixels_keeps_fractions_of_levels_at_level_10():
    levels = (
        augment_pixels(random_image(), AUGMENTATION_LEVELS[10], np.random.default_rng(19)) * 255
    )
    assert np.abs(levels - np.rint(levels)).max() > 0.3


# A level through 8 bits hides changes below half a grey level, and so does a narrow blur; how often
# blur and noise are applied shows on a level that has nothing else.


@pytest.mark.parametrize("number", EIGHT_BIT_LEVELS)
def test_augment_pixels_blurs_as_often_as_the_level_says(number):
    level = AUGMENTATION_LEVELS[number]
    image = random_image(16)
    image[8, 8] = 0  # a speck that the narrowest blur changes
    share = changed_share(image, AugmentationLevel(blur_p=level.blur_p, blur_sigma=2.0), 2000)
    # A sigma below about .15 has no weight beyond the pixel itself.
    assert share == pytest.approx(PAPER_LEVELS[number][5], rel=0.2)
    assert share < PAPER_LEVELS[number][5] + 0.045


@pytest.mark.parametrize("number", EIGHT_BIT_LEVELS)
def test_augment_pixels_adds_noise_as_often_as_the_level_says(number):
    level = AUGMENTATION_LEVELS[number]
    alone = AugmentationLevel(noise_p=level.noise_p, noise_sigma=level.noise_sigma)
    assert_share(changed_share(random_image(16), alone, 2000), PAPER_LEVELS[number][7], 2000)


def test_augment_pixels_adds_salt_and_pepper_as_often_as_the_level_says():
    alone = AugmentationLevel(salt_and_pepper_p=AUGMENTATION_LEVELS[20].salt_and_pepper_p)
    image = random_image(256)  # 676 cells or more, of which one is surely hit
    assert_share(changed_share(image, alone, 1500), 0.1, 1500)


def test_augment_pixels_draws_noise_up_to_sigma():
    level, rng = AugmentationLevel(noise_p=1.0, noise_sigma=0.04), np.random.default_rng(20)
    grey = np.full((32, 32), 0.5, np.float32)
    noises = [augment_pixels(grey, level, rng) - grey for _ in range(1000)]
    sigmas = np.std(noises, axis=(1, 2))
    assert sigmas.max() == pytest.approx(0.04, rel=0.08)
    assert sigmas.min() < 0.002
    assert sigmas.mean() == pytest.approx(0.02, rel=4 / np.sqrt(3 * 1000))
    assert np.mean(noises) == pytest.approx(0, abs=4 * 0.023 / np.sqrt(1000 * 32 * 32))


def test_augment_pixels_draws_noise_afresh():
    level, rng = AugmentationLevel(noise_p=1.0, noise_sigma=0.04), np.random.default_rng(21)
    grey = np.full((32, 32), 0.5, np.float32)
    first, second = (augment_pixels(grey, level, rng) - grey for _ in range(2))
    assert_uncorrelated(first.ravel(), second.ravel())


def draw_noise(rng, size=512, sigma=0.04):
    """Return noise in units of its standard deviation."""
    level = AugmentationLevel(noise_p=1.0, noise_sigma=sigma)
    noise = augment_pixels(np.full((size, size), 0.5, np.float32), level, rng) - 0.5
    return noise / noise.std()


def test_noise_is_gaussian():
    noise = draw_noise(np.random.default_rng(31))
    n = noise.size
    assert np.mean(noise) == pytest.approx(0, abs=4 / np.sqrt(n))
    assert np.mean(noise**3) == pytest.approx(0, abs=4 * np.sqrt(15 / n))
    assert np.mean(noise**4) == pytest.approx(3, abs=4 * np.sqrt(96 / n))
    for bound, share in ((1, 0.3173), (2, 0.0455), (3, 0.0027)):
        assert_share(np.mean(np.abs(noise) > bound), share, n)


def test_noise_does_not_repeat_itself():
    noise = draw_noise(np.random.default_rng(32)).astype(float)
    spectrum = np.abs(np.fft.fft2(noise)) ** 2
    correlation = np.fft.ifft2(spectrum).real / noise.size  # by shift, over the border
    assert correlation[0, 0] == pytest.approx(1, abs=0.01)
    correlation[0, 0] = 0
    assert np.abs(correlation).max() < 6 / np.sqrt(noise.size)


def test_noise_of_two_samples_is_independent():
    noises = [draw_noise(np.random.default_rng((3, 0, i))) for i in range(8)]
    for i, noise in enumerate(noises):
        for other in noises[:i]:
            assert_uncorrelated(noise.ravel(), other.ravel())


def test_augment_pixels_blurs_detail_away():
    level, rng = AugmentationLevel(blur_p=1.0, blur_sigma=2.0), np.random.default_rng(22)
    speckle = rng.random((64, 64), dtype=np.float32)
    blurred = np.array([augment_pixels(speckle, level, rng) for _ in range(200)])
    variances = blurred.var(axis=(1, 2)) / speckle.var()
    # White noise keeps 1 / (4 pi sigma^2) of its variance: .02 at sigma 2.
    assert variances.min() == pytest.approx(0.02, abs=0.01)
    assert np.all(variances <= 1 + 1e-6)
    assert np.median(variances) == pytest.approx(1 / (4 * np.pi), rel=0.4)  # at sigma 1
    np.testing.assert_allclose(blurred.mean(axis=(1, 2)), speckle.mean(), rtol=0.02)


def test_augment_pixels_turns_one_percent_of_cells():
    level, rng = AugmentationLevel(salt_and_pepper_p=1.0), np.random.default_rng(23)
    grey = np.full((128, 128), 0.5, np.float32)
    hits = [augment_pixels(grey, level, rng) != 0.5 for _ in range(300)]
    # 300 grids of about 380 cells: 1,100 hits, so the share is known to 3 %.
    assert np.mean(hits) == pytest.approx(0.01, rel=0.15)


def test_augment_pixels_turns_cells_of_5_to_10_pixels():
    level, rng = AugmentationLevel(salt_and_pepper_p=1.0), np.random.default_rng(24)
    grey = np.full((128, 128), 0.5, np.float32)
    sides = []
    for _ in range(200):
        hit = (augment_pixels(grey, level, rng) != 0.5).astype(np.uint8)
        *_, boxes, _ = cv2.connectedComponentsWithStats(hit, connectivity=4)
        sides += boxes[1:, 2:4].ravel().tolist()
    assert min(sides) >= 4
    assert 5 <= np.median(sides) <= 10


def test_augment_pixels_turns_cells_to_near_black_and_white():
    level, rng = AugmentationLevel(salt_and_pepper_p=1.0), np.random.default_rng(25)
    grey = np.full((128, 128), 0.5, np.float32)
    images = np.array([augment_pixels(grey, level, rng) for _ in range(200)])
    values = images[images != 0.5]
    extreme = (values < 0.1) | (values > 0.9)
    assert extreme.mean() == pytest.approx(0.41, abs=0.06)  # of beta(1/2, 1/2); .2 if even
    assert values.mean() == pytest.approx(0.5, abs=0.06)


# Randomness


@pytest.mark.parametrize("number", LEVELS)
def test_augmentation_follows_from_the_generator_alone(number):
    level = AUGMENTATION_LEVELS[number]
    if level.noise_p:
        level = replace(level, noise_p=1.0)

    def make_samples(global_seed):
        cv2.setRNGSeed(global_seed)
        np.random.seed(global_seed)
        rng = np.random.default_rng(5)
        crops = [draw_crop((1024, 1024), 512, level, rng, hflip=True) for _ in range(5)]
        return crops, [augment_pixels(random_image(), level, rng) for _ in range(5)]

    crops, images = make_samples(1)
    other_crops, other_images = make_samples(2)
    assert crops == other_crops
    np.testing.assert_array_equal(images, other_images)


@pytest.mark.parametrize("number", LEVELS)
def test_augmentation_leaves_numpys_global_state_alone(number):
    np.random.seed(3)
    expected = np.random.random(4)
    np.random.seed(3)
    rng = np.random.default_rng(5)
    for _ in range(20):
        draw_crop((1024, 1024), 512, AUGMENTATION_LEVELS[number], rng)
        augment_pixels(random_image(16), AUGMENTATION_LEVELS[number], rng)
    np.testing.assert_array_equal(np.random.random(4), expected)


@pytest.mark.parametrize("number", [10, 11, 15, 20, 21])
def test_augmentation_differs_between_generators(number):
    level = AUGMENTATION_LEVELS[number]
    rngs = [np.random.default_rng(seed) for seed in (5, 6)]
    first, second = (augment_pixels(random_image(), level, rng) for rng in rngs)
    assert not np.array_equal(first, second)
