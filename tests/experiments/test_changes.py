from dataclasses import replace

import pytest

from src.experiments.changes import MAX_TAG, read_changes, tag_of_changes
from src.experiments.table import EXPERIMENTS
from src.system.errors import InputError


@pytest.mark.parametrize(
    ("word", "name", "value"),
    [
        ("img_size=224", "img_size", 224),
        ("learning_rate=1e-3", "learning_rate", 1e-3),
        ("learning_rate=1", "learning_rate", 1.0),
        ("encoder=timm/resnet10t", "encoder", "timm/resnet10t"),
        ("fit=pad", "fit", "pad"),
        ("pretrained=false", "pretrained", False),
        ("hflip=True", "hflip", True),
        ("pyramid_levels=3,4,5,6,7", "pyramid_levels", (3, 4, 5, 6, 7)),
        ("anchor_scales=1", "anchor_scales", (1.0,)),
        ("source_crop=none", "source_crop", None),
        ("source_crop=768", "source_crop", 768),
    ],
)
def test_a_text_becomes_the_value_of_its_field(word, name, value):
    changes = read_changes([word])
    assert changes == {name: value}
    assert type(changes[name]) is type(value)
    assert getattr(replace(EXPERIMENTS["demo"], **changes), name) == value


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["img_size"], "--set 'img_size': FIELD=VALUE would be right"),
        (["img_sze=3"], "--set 'img_sze=3': no such setting; did you mean img_size"),
        (["xyz=3"], "no such setting; one of encoder, img_size"),
        (["fit=pad", "fit=squeeze"], "--set 'fit=squeeze': fit is set twice"),
    ],
)
def test_a_word_that_changes_nothing_is_refused(words, message):
    with pytest.raises(InputError) as refused:
        read_changes(words)
    assert str(refused.value).startswith(message) or message in str(refused.value)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("img_size=abc", "img_size cannot be 'abc'; it must be a multiple of 32"),
        ("img_size=223", "img_size cannot be 223"),
        ("learning_rate=nan", "learning_rate cannot be nan"),
        ("pretrained=maybe", "pretrained cannot be 'maybe'; it must be True or False"),
        ("pyramid_levels=3,x", "pyramid_levels cannot be (3, 'x')"),
        ("optimizer=none", "optimizer cannot be 'none'"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_the_experiment(word, message):
    with pytest.raises(InputError) as refused:
        replace(EXPERIMENTS["demo"], **read_changes([word]))
    assert str(refused.value).startswith(message)


def test_the_tag_tells_what_was_changed_in_any_order():
    words = ["scheduler=one_cycle", "img_size=224", "pyramid_levels=3,4,5", "learning_rate=1e-3"]
    tag = "img_size-224_pyramid_levels-3-4-5_learning_rate-0.001_scheduler-one_cycle"
    assert tag_of_changes(read_changes(words)) == tag
    assert tag_of_changes(read_changes(reversed(words))) == tag


def test_equal_values_have_one_tag():
    assert tag_of_changes(read_changes(["learning_rate=1e-3"])) == tag_of_changes(
        read_changes(["learning_rate=.001"])
    )


def test_different_values_that_are_written_alike_have_different_tags():
    tags = {tag_of_changes(read_changes([f"learning_rate={value}"]))
            for value in ("0.00100000001", "0.001")}  # fmt: skip
    assert len(tags) == 2


def test_a_long_tag_is_a_short_one_that_still_differs():
    long = ["encoder=timm/" + "x" * 90]
    tag, other = (tag_of_changes(read_changes([*long, f"img_size={n}"])) for n in (224, 256))
    assert max(len(tag), len(other)) <= MAX_TAG
    assert tag != other


def test_a_tag_can_be_a_part_of_a_files_name():
    tag = tag_of_changes(read_changes(["encoder=timm/a b"]))
    assert tag == "encoder-timm-a-b"
