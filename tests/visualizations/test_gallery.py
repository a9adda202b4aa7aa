from src.prediction.presets import Postprocess
from src.scoring.matching import find_boxes
from src.visualizations.gallery import (
    Entry,
    best_hits,
    loosest_hits,
    missed_boxes,
    worst_false_positives,
)
from tests.made_predictions import ALL, WHOLE, make_predictions

ELSEWHERE = [120, 120, 180, 180]


def in_height(height):
    """A box whose IoU with WHOLE is height / 100."""
    return [0, 0, 100, height]


def lists(choose, *images, postprocess=ALL, n_images=9):
    return choose(find_boxes(make_predictions(*images), postprocess), n_images)


def test_the_surest_false_positive_comes_first():
    entries = lists(
        worst_false_positives,
        ([WHOLE], [(WHOLE, 1.0), (ELSEWHERE, 0.3)]),
        ([], [(WHOLE, 0.8)]),
        ([WHOLE], [(in_height(30), 0.5)]),
        ([WHOLE], [(WHOLE, 0.9), (in_height(60), 0.4)]),
        ([WHOLE], [(WHOLE, 0.9)]),
    )
    assert entries == [
        Entry(1, "score 0.80, in an image without true boxes", marked_found=(2,)),
        Entry(2, "score 0.50, IoU 0.30 with the nearest true box", marked_found=(3,)),
        Entry(3, "score 0.40, a second box on a true one (IoU 0.60)", marked_found=(5,)),
        Entry(0, "score 0.30, touches no true box", marked_found=(1,)),
    ]


def test_an_image_stands_once_with_all_its_false_positives():
    two, one = [(WHOLE, 0.9), (ELSEWHERE, 0.5)], [(WHOLE, 0.7)]
    first, second = lists(worst_false_positives, ([], two), ([], one))
    assert first.marked_found == (0, 1)
    assert first.reason.endswith("; 2 false boxes in all")
    assert (second.image, second.marked_found) == (1, (2,))
    assert lists(worst_false_positives, ([], two), ([], one), n_images=1) == [first]


def test_boxes_that_do_not_count_are_no_false_positives():
    postprocess = Postprocess(threshold=2.0, nms=0.05)
    found = [(WHOLE, 0.9), (in_height(90), 0.8), (ELSEWHERE, 0.3)]
    assert lists(worst_false_positives, ([WHOLE], found), postprocess=postprocess) == []


def test_the_least_noticed_missed_box_comes_first():
    small = [0, 0, 50, 50]
    entries = lists(
        missed_boxes,
        ([WHOLE], [(WHOLE, 0.9)]),
        ([WHOLE], [(in_height(60), 0.3)]),
        ([small], []),
        ([WHOLE], [(in_height(39), 0.9)]),
        ([WHOLE], [([60, 0, 160, 100], 0.9), (in_height(80), 0.7)]),
        postprocess=Postprocess(threshold=2.0, nms=0.05),
    )
    assert entries == [
        Entry(3, "no candidate reaches IoU 0.40 with it", marked_true=(3,)),  # larger than small
        Entry(2, "no candidate reaches IoU 0.40 with it", marked_true=(2,)),
        Entry(1, "its best candidate scores 0.30, below the threshold", marked_true=(1,)),
        Entry(4, "its best candidate, score 0.70, fell to a better box in the NMS",
              marked_true=(4,)),
    ]  # fmt: skip


def test_a_missed_box_may_lose_its_candidate_to_another_true_box():
    entries = lists(missed_boxes, ([WHOLE, in_height(90)], [(in_height(95), 0.9)]))
    reason = "its best candidate, score 0.90, hits another true box"
    assert entries == [Entry(0, reason, marked_true=(1,))]


def test_an_image_stands_once_with_all_its_missed_boxes():
    (entry,) = lists(missed_boxes, ([WHOLE, ELSEWHERE], [(in_height(30), 0.9)]))
    assert entry.marked_true == (0, 1)
    assert entry.reason.startswith("2 missed; of the least noticed one: no candidate")


def test_a_candidate_that_shrinks_away_from_a_box_does_not_notice_it():
    postprocess = Postprocess(threshold=0.0, nms=1.0, shrink=0.5)
    (entry,) = lists(missed_boxes, ([WHOLE], [(WHOLE, 0.9)]), postprocess=postprocess)
    assert entry.reason == "no candidate reaches IoU 0.40 with it"


def test_the_loosest_hit_comes_first():
    entries = lists(
        loosest_hits,
        ([WHOLE, ELSEWHERE], [(in_height(90), 0.9), (ELSEWHERE, 0.8)]),
        ([WHOLE], [(in_height(60), 0.9)]),
        ([WHOLE], [(in_height(30), 0.9)]),
    )
    assert entries == [
        Entry(1, "IoU 0.60 with its true box", marked_found=(2,)),
        Entry(0, "IoU 0.90 with its true box", marked_found=(0,)),
    ]


def test_the_best_scored_image_comes_first_and_then_the_one_with_the_best_overlap():
    entries = lists(
        best_hits,
        ([WHOLE], [(in_height(90), 0.9)]),
        ([WHOLE], [(in_height(99), 0.9), (ELSEWHERE, 0.8)]),  # a false positive: scores 1/2
        ([WHOLE, ELSEWHERE], [(WHOLE, 0.9), (ELSEWHERE, 0.8)]),
        ([WHOLE], []),
        ([WHOLE, ELSEWHERE], [(in_height(80), 0.9), (ELSEWHERE, 0.8)]),
    )
    assert entries == [
        Entry(2, "2 of 2 true boxes hit, mean IoU 1.00"),
        Entry(0, "1 of 1 true boxes hit, mean IoU 0.90"),
        Entry(4, "2 of 2 true boxes hit, mean IoU 0.90"),
        Entry(1, "1 of 1 true boxes hit, mean IoU 0.99"),
    ]


def test_lists_are_empty_where_nothing_was_found():
    for choose in (worst_false_positives, loosest_hits, best_hits):
        assert lists(choose, ([WHOLE], []), ([], [])) == []
