import numpy as np
import pytest

from src.scoring.number_tables import write_group_numbers
from src.scoring.scored_images import scored_predictions
from src.scoring.subgroups import group_numbers
from src.system.errors import InputError
from src.visualizations.plot_groups import main, plot_groups, read_groups
from tests.made_predictions import ALL, random_predictions, with_weak_boxes


@pytest.fixture
def table(tmp_path):
    """Return a groups.csv of 80 images in two groups of one column and one of another."""
    data = scored_predictions(with_weak_boxes(random_predictions(n_images=80)), ALL)
    views = {image: "AP" if i < 70 else "PA <$x$>" for i, image in enumerate(data.ids)}
    scores = np.random.default_rng(0).random(len(data.ids))
    groups = group_numbers(data, scores, {"view": views, "all": {}}, n_draws=20)
    write_group_numbers(tmp_path / "groups.csv", list(groups))
    return tmp_path / "groups.csv"


def test_groups_are_read_with_their_counts_and_intervals(table):
    groups = read_groups(table, "ap_50")
    assert [(one.column, one.group, one.n_images) for one in groups] == [
        ("view", "AP", 70), ("view", "PA <$x$>", 10), ("all", "unknown", 80)
    ]  # fmt: skip
    assert [one.is_small for one in groups][1]
    assert all(0 <= one.low <= one.value <= one.high <= 1 for one in groups)
    head, box = (read_groups(table, "auroc", name) for name in ("global head", "best box"))
    assert head[0].value != box[0].value
    assert read_groups(table, "auroc") == head


def test_small_groups_have_open_marks_and_each_its_value(table):
    groups = read_groups(table, "score")
    (axes,) = plot_groups(groups, "score").axes
    marks = [line for line in axes.lines if line.get_marker() == "o"]
    assert [line.get_markerfacecolor() == "white" for line in marks] == [
        group.is_small for group in groups
    ]
    texts = [text.get_text() for text in axes.texts]
    assert [f"{group.value:.3f}" in texts for group in groups] == [True] * 3
    assert "view" in texts and "all" in texts
    low, high = axes.get_xlim()
    assert low < min(group.low for group in groups) and high > max(one.high for one in groups)


def test_the_command_draws_a_picture(table, tmp_path, call_main):
    out = tmp_path / "pics" / "groups.png"
    outcome = call_main(main, table, "--number", "froc", "--out", out)
    assert (outcome.code, outcome.err) == (0, "")
    assert out.stat().st_size > 5000 and out.with_suffix(".pdf").exists()
    assert outcome.out.splitlines() == [str(out), str(out.with_suffix(".pdf"))]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("patientId,x\n", "not a groups.csv"),
        ("", "not a groups.csv"),
        (None, "holds no number other, only ap"),
    ],
)
def test_what_holds_no_such_number_is_refused(table, content, words):
    if content is not None:
        table.write_text(content)
    with pytest.raises(InputError, match=words) as caught:
        read_groups(table, "other")
    assert str(table) in str(caught.value)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv: no such file; src/scores\.py --groups"):
        read_groups(tmp_path / "none.csv", "score")
