import pytest

from src.prediction.presets import PRESETS, Postprocess, choose_postprocess
from src.system.errors import InputError


def choose(preset=None, *, combines, **flags):
    return choose_postprocess(preset, flags, combines=combines)


def test_one_network_is_plain_by_default():
    assert choose(combines=False) == Postprocess(
        preset="plain", gate="score", threshold=0.3, threshold_from="default", nms=0.05, shrink=1.0
    )


def test_an_ensemble_is_the_second_places_by_default():
    assert choose(combines=True) == choose("second-place", combines=True)


@pytest.mark.parametrize(
    ("preset", "size_rule", "k"),
    [("plain", "mean", None), ("paper", "percentile", 1.6), ("second-place", "percentile", 0.9)],
)
def test_a_preset_combines_sizes_its_own_way(preset, size_rule, k):
    settings = choose(preset, combines=True)
    assert (settings.preset, settings.size_rule, settings.k) == (preset, size_rule, k)


@pytest.mark.parametrize("preset", PRESETS)
def test_nothing_of_the_size_rule_is_left_for_one_network(preset):
    settings = choose(preset, combines=False)
    assert (settings.size_rule, settings.k) == ("mean", None)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_gates_score_x_5_and_suppresses_at_the_papers_iou(preset):
    settings = choose(preset, combines=False)
    assert (settings.gate, settings.threshold, settings.nms) == ("score", 0.3, 0.05)


def test_the_second_place_shrinks_the_boxes_of_one_network_alone():
    assert choose("second-place", combines=False).shrink == 0.875
    assert choose("second-place", combines=True).shrink == 1.0
    assert choose("second-place", combines=True, size_rule="mean").shrink == 1.0


def test_flags_override_their_values_of_the_preset():
    flags = {"gate": "score_category", "threshold": 2.0, "nms": 0.5, "shrink": 0.9}
    for combines in (False, True):
        settings = choose("second-place", combines=combines, **flags)
        assert {name: getattr(settings, name) for name in flags} == flags
        assert settings.threshold_from == "flag"


def test_a_flag_of_none_or_zero_is_told_apart():
    assert choose(combines=False, nms=None, threshold=0.0).nms == 0.05
    assert choose(combines=False, threshold=0.0).threshold == 0.0
    assert choose("paper", combines=True, k=0.0).k == 0.0


def test_percentiles_that_are_asked_for_take_the_second_places_k():
    assert choose("plain", combines=True, size_rule="percentile").k == 0.9
    assert choose("plain", combines=True, size_rule="percentile", k=2.0).k == 2.0


def test_a_mean_in_place_of_percentiles_has_no_k():
    assert choose("paper", combines=True, size_rule="mean").k is None


def test_a_k_for_sizes_that_are_averaged_is_refused():
    for flags in ({"k": 1.6}, {"k": 1.6, "size_rule": "mean"}):
        with pytest.raises(InputError, match=r"--k 1\.6: .* --combine percentile"):
            choose("plain", combines=True, **flags)


def test_the_threshold_is_open_until_somebody_sets_it():
    assert choose("paper", combines=False).threshold_is_open
    assert not choose("second-place", combines=False).threshold_is_open
    assert not choose(combines=False, threshold=0.3).threshold_is_open


def test_a_gate_that_does_not_exist_is_named_with_those_that_do():
    with pytest.raises(ValueError, match=r"'sum' .* score, score_category, sqrt_score_category"):
        Postprocess(gate="sum")
