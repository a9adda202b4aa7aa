import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from src.scoring.average_precision import average_precision
from src.scoring.bootstrap import draw_patients, percentile_interval, widen_draws
from src.scoring.comparison import (
    BOOTSTRAP,
    LEVEL,
    PERMUTATION,
    SCORE,
    ComparedRun,
    Difference,
    bootstrap_p,
    compare_runs,
    correct_by_holm,
    permutation_p,
)
from src.scoring.comparison_texts import explain_missing
from src.scoring.image_differences import compare_images
from src.scoring.quoted_numbers import IMAGE_NUMBERS, NUMBERS, compute_numbers
from src.scoring.ranked_boxes import DrawnBoxes, rank_boxes
from tests.made_detectors import detect, make_truth
from tests.made_scored_images import scored_images

N_PAIRS = 200
NAN = math.nan


@pytest.fixture(scope="module")
def runs():
    """Three detectors, the third the worst, over 40 images of 20 patients."""
    rng = np.random.default_rng(5)
    truth = make_truth(rng, 40)
    made = [detect(rng, truth, noise=noise) for noise in (6, 6, 15)]
    patients = np.arange(40) // 2
    return [replace(run, data=replace(run.data, patients=patients)) for run in made]


def by_number(differences):
    return {(each.number, each.run_a, each.run_b): each for each in differences}


def compared_scores(scores):
    """A run of which only the challenge's scores of images matter."""
    data = scored_images([([], [], [])] * len(scores))
    return ComparedRun("made", data, np.array(scores), data.predicted, data.scores, data.true)


def binomial_bounds(n, p, share=0.999):
    """Bound a count of n that holds at least this share of its distribution."""
    chances = np.array([math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)])
    low = int(np.searchsorted(chances.cumsum(), (1 - share) / 2))
    return low, n - int(np.searchsorted(chances[::-1].cumsum(), (1 - share) / 2))


# Honesty


def test_detectors_of_equal_quality_differ_in_five_per_cent_of_comparisons():
    """200 pairs over 40 images each, with 199 draws: about 10 s.

    The challenge's score is tested exactly. Numbers that take few values are found less often than
    that, so that only the upper bound holds for all.
    """
    counts = dict.fromkeys(
        [SCORE, *(n.name if n not in IMAGE_NUMBERS else f"{n.name} (head)" for n in NUMBERS)], 0
    )
    for seed in range(N_PAIRS):
        rng = np.random.default_rng(seed)
        truth = make_truth(rng, 40)
        pair = [detect(rng, truth), detect(rng, truth)]
        for each in compare_runs(pair, 199):
            counts[each.number] += each.is_shown
    low, high = binomial_bounds(N_PAIRS, LEVEL)
    assert (low, high) == (2, 21)
    assert low <= counts[SCORE] <= high
    assert {name: count for name, count in counts.items() if count > high} == {}
    for name in ("ap_50", "froc", "auroc (head)", "image_ap (head)"):
        assert counts[name] >= low, name


def test_a_detector_that_is_better_is_found():
    found = {SCORE: 0, "ap_50": 0, "froc": 0, "auroc (head)": 0}
    for seed in range(20):
        rng = np.random.default_rng(seed)
        truth = make_truth(rng, 100)
        pair = [detect(rng, truth, noise=6), detect(rng, truth, noise=25)]
        for each in compare_runs(pair, 199):
            if each.number in found:
                found[each.number] += each.verdict("A", "B") == "A is better"
    assert min(found.values()) >= 18, found


def test_another_scale_of_scores_changes_no_test_of_ranks():
    rng = np.random.default_rng(3)
    truth = make_truth(rng, 60)
    first = detect(rng, truth)
    same = [detect(np.random.default_rng(9), truth, scale=scale) for scale in (1, 3)]
    plain, scaled = (by_number(compare_runs([first, run], 200)) for run in same)
    changed = {key[0] for key, each in plain.items() if scaled[key] != each}
    assert changed == {"ece (head)"}


# The tests


def exact_p(a, b, patients):
    """Try every swap."""
    differences = []
    for coins in product([False, True], repeat=len(set(patients))):
        is_swapped = np.array(coins)[patients]
        pair = np.where(is_swapped, b, a), np.where(is_swapped, a, b)
        differences.append(np.nanmean(pair[0]) - np.nanmean(pair[1]))
    return np.mean(np.abs(differences) >= abs(differences[0]) - 1e-12)


def test_permutation_p_is_the_share_of_all_swaps():
    rng = np.random.default_rng(0)
    a, b = rng.random(14), rng.random(14) - 0.2
    a[[2, 5]], b[[5, 9]] = NAN, NAN
    patients = np.array([0, 0, 1, 2, 3, 4, 5, 5, 6, 7, 8, 8, 8, 9])
    expected = exact_p(a, b, patients)
    assert 0.02 < expected < 0.9
    assert permutation_p(a, b, patients, 20_000) == pytest.approx(expected, abs=0.015)


def test_permutation_p_swaps_all_images_of_a_patient():
    a, b = np.ones(12), np.zeros(12)
    assert permutation_p(a, b, np.zeros(12, dtype=int), 300) == 1
    assert permutation_p(a, b, np.arange(12), 300) < 0.02


def test_permutation_p_counts_the_data_as_one_swap():
    assert permutation_p(np.ones(60), np.zeros(60), np.arange(60), 99) == 0.01


def test_permutation_p_of_equal_scores_is_one_and_of_none_undefined():
    a = np.array([0.1, NAN, 0.7])
    assert permutation_p(a, a, np.arange(3), 100) == 1
    assert math.isnan(permutation_p(a, np.full(3, NAN), np.arange(3), 100))


@pytest.mark.parametrize(
    ("draws", "expected"),
    [
        ([1.0] * 95 + [-1.0] * 5, 2 * 6 / 101),
        ([-1.0] * 95 + [1.0] * 5, 2 * 6 / 101),
        ([1.0] * 99, 2 / 100),
        ([0.0] * 20, 1.0),
        ([1.0] * 10 + [NAN] * 50, 2 / 11),
        ([1.0] * 8 + [0.0] * 2, 2 * 3 / 11),
    ],
    ids=["above", "below", "all", "none", "undefined", "some at 0"],
)
def test_bootstrap_p_is_twice_the_share_on_the_other_side(draws, expected):
    assert bootstrap_p(np.array(draws)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("p_values", "expected"),
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.02], [0.02]),
        ([0.6, 0.5], [1.0, 1.0]),
        ([], []),
    ],
)
def test_holm_multiplies_by_how_many_are_left_and_keeps_the_order(p_values, expected):
    assert correct_by_holm(p_values) == pytest.approx(expected)


# The table


def test_every_number_is_compared_and_values_are_those_of_one_run(runs):
    differences = by_number(compare_runs(runs[:2], 100))
    expected = [SCORE] + [
        f"{each.name} ({each.image_score})" if each.image_score else each.name
        for each in compute_numbers(runs[0].data, 0)
    ]
    assert [key[0] for key in differences] == expected
    for i, run in enumerate(runs[:2]):
        alone = compute_numbers(run.data, 0)
        for name, each in zip(expected[1:], alone, strict=True):
            assert differences[name, 0, 1][3 + i] == pytest.approx(each.value)
        score = differences[SCORE, 0, 1][3 + i]
        assert score == pytest.approx(np.nanmean(run.image_scores))
    for each in differences.values():
        assert each.difference == each.value_a - each.value_b
        assert each.test == (PERMUTATION if each.number == SCORE else BOOTSTRAP)


def test_both_runs_are_judged_on_the_same_draws_of_patients(runs):
    each = by_number(compare_runs(runs[:2], 120))["ap_50", 0, 1]
    draws = draw_patients(runs[0].data.patients, 120)
    first, second = (
        average_precision(DrawnBoxes(rank_boxes(run.data), draws), 0.5) for run in runs[:2]
    )
    widened = widen_draws(first - second, each.difference, 20)
    assert (each.low, each.high) == pytest.approx(percentile_interval(widened))
    assert each.p == bootstrap_p(widened)


def test_the_scores_interval_draws_patients_too(runs):
    each = by_number(compare_runs(runs[:2], 120))[SCORE, 0, 1]
    rows = [np.repeat(np.arange(40), w) for w in draw_patients(runs[0].data.patients, 120)]
    draws = [
        np.nanmean(runs[0].image_scores[row]) - np.nanmean(runs[1].image_scores[row])
        for row in rows
    ]
    widened = widen_draws(np.array(draws), each.difference, 20)
    assert (each.low, each.high) == pytest.approx(percentile_interval(widened))


def test_the_run_that_knows_the_patients_tells_them(runs):
    known = by_number(compare_runs(runs[:2], 120))
    older = replace(runs[0], data=replace(runs[0].data, patients=np.arange(40)))
    assert by_number(compare_runs([older, runs[1]], 120)) == known
    alone = [replace(run, data=replace(run.data, patients=np.arange(40))) for run in runs[:2]]
    assert by_number(compare_runs(alone, 120)) != known


def test_the_other_order_of_two_runs_turns_the_signs(runs):
    there, back = (
        by_number(compare_runs(pair, 100)) for pair in (runs[:2], [runs[1], runs[0]])
    )  # fmt: skip
    for key, each in there.items():
        other = back[key]
        assert (other.difference, other.low, other.high) == pytest.approx(
            (-each.difference, -each.high, -each.low)
        )
        assert other.p == pytest.approx(each.p, abs=0.03 if each.test == PERMUTATION else 1e-9)


def test_p_values_of_a_number_are_corrected_for_its_pairs(runs):
    found = by_number(compare_runs(runs, 100))
    pairs = [(0, 1), (0, 2), (1, 2)]
    assert {key[1:] for key in found} == set(pairs)
    for name in {key[0] for key in found}:
        own = [found[(name, *pair)] for pair in pairs]
        corrected = correct_by_holm([each.p for each in own])
        assert [each.p_holm for each in own] == corrected
    assert any(each.p_holm > each.p for each in found.values())


@pytest.mark.filterwarnings("error")
def test_what_a_run_cannot_give_is_left_out_and_said(runs):
    box_numbers = {"ap_50", "froc"}
    old = replace(runs[0], data=replace(runs[0].data, is_complete=False))
    names = {each.number for each in compare_runs([old, runs[1]], 100)}
    assert not names & box_numbers and "auroc (head)" in names and SCORE in names
    assert "A was saved without weaker boxes" in " ".join(explain_missing([old, runs[1]], "AB"))

    other = replace(runs[1], data=replace(runs[1].data, image_scores={}))
    names = {each.number for each in compare_runs([runs[0], other], 100)}
    assert names >= box_numbers and "auroc (head)" not in names
    notes = list(explain_missing([runs[0], other], "AB"))
    assert notes == ["no numbers of images by their score 'head' for B"]
    assert list(explain_missing(runs, "ABC")) == []


def test_boxes_above_a_threshold_are_not_ranked_against_all_boxes(runs):
    cut = [replace(run, is_thresholded=True) for run in runs[:2]]
    assert "ap_50" not in {each.number for each in compare_runs([runs[0], cut[1]], 100)}
    assert "ap_50" in {each.number for each in compare_runs(cut, 100)}
    assert "between a run and a submission" in next(explain_missing([runs[0], cut[1]], "AB"))
    assert "of the boxes that were submitted" in next(explain_missing(cut, "AB"))


@pytest.mark.filterwarnings("error")
def test_without_true_boxes_undefined_numbers_are_left_out():
    run = compared_scores([NAN, 0.0, 0.0])
    assert [each.number for each in compare_runs([run, run], 100)] == [SCORE, "froc_reached"]
    silent = compared_scores([NAN] * 3)
    assert SCORE not in {each.number for each in compare_runs([run, silent], 100)}
    assert "no image has a true box" in " ".join(explain_missing([run, silent], "AB"))


@pytest.mark.parametrize(
    ("number", "difference", "p_holm", "verdict"),
    [
        ("score", 0.1, 0.01, "A is better"),
        ("score", -0.1, 0.01, "B is better"),
        ("score", 0.1, 0.06, "no difference shown"),
        ("ece (best box)", 0.1, 0.01, "B is better"),
        ("froc_reached", 0.1, 0.01, "A has more"),
    ],
)
def test_the_verdict_is_plain(number, difference, p_holm, verdict):
    each = Difference(number, 0, 1, 0, 0, difference, 0, 0, 0.01, p_holm, BOOTSTRAP, "")
    assert each.verdict("A", "B") == verdict


# By image


def test_images_that_differ_most_come_first_and_silence_is_right_without_true_boxes():
    first = compared_scores([0.5, 1.0, NAN, 0.0, 0.0, NAN])
    second = compared_scores([0.6, 0.0, 0.0, NAN, 0.0, NAN])
    rows = compare_images(first, second)
    means = 1.5 / 4, 0.6 / 4
    expected = {0: (-0.1, -1), 1: (1.0, 1), 2: (means[0], 1), 3: (-means[1], -1), 4: (0, 0),
                5: (0, 0)}  # fmt: skip
    assert [row.image for row in rows] == [1, 2, 3, 0, 4, 5]
    for row in rows:
        assert (row.difference, row.better) == pytest.approx(expected[row.image])
    assert math.isnan(rows[1].score_a) and rows[1].score_b == 0


@pytest.mark.filterwarnings("error")
def test_a_run_that_finds_nothing_is_compared_by_image():
    rows = compare_images(compared_scores([NAN, NAN]), compared_scores([0.0, NAN]))
    assert [(row.difference, row.better) for row in rows] == [(0, 1), (0, 0)]
