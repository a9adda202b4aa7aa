import base64
import csv
import hashlib
import re
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import numpy as np
import pytest

import config
from src.scoring.grid import sweep_run
from src.structures import UNKNOWN_CATEGORY
from src.visualizations.runs_index import main
from tests.conftest import run_main
from tests.made_predictions import make_fold, save_epoch, save_folds
from tests.made_runs import describe_run, save_losses
from tests.pages import CHROMIUM, Page, browse
from tests.paths import ROOT

EVIL = '<script>alert("1")&amp;<img src=x onerror=alert(2)>'
ODD_FOLDER = "a 'folder' & \"<b>%41#?"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """Return a folder with four folds of a training and one of another."""
    folder = tmp_path_factory.mktemp("runs") / ODD_FOLDER
    for run_dir, fold in zip(save_folds(folder), range(4), strict=True):
        describe_run(folder, fold=fold, versions={EVIL: EVIL})
        save_losses(run_dir, [0.5, 600.0 if fold == 1 else 0.4, 0.3])
    other = describe_run(folder, tag="b", seed=5, settings={"hflip": True, EVIL: EVIL}, date=EVIL)
    save_losses(other, [0.6, 0.5], seconds=[3600, 61])
    save_epoch(other, make_fold(0))
    sweep_run(other).save(other / "scores.npz")
    (other / "report.html").write_text("a report")
    return folder


@pytest.fixture
def folder(pristine, tmp_path):
    """Return a copy that may be changed."""
    return shutil.copytree(pristine, tmp_path / "more" / ODD_FOLDER)


class Index(NamedTuple):
    """What the command wrote: the rows of runs.csv by the runs' names, and the page."""

    out: Path
    rows: dict[str, dict[str, str]]
    text: str


def make_index(out, *words):
    assert run_main(main, *words, "--out", out) == 0
    with (out / "runs.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    return Index(out, rows, (out / "index.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def made(pristine, tmp_path_factory):
    """Return what the command makes of the pristine folder."""
    return make_index(tmp_path_factory.mktemp("made"), pristine)


@pytest.fixture
def index(tmp_path):
    """Return a function that runs the command, and returns what it wrote."""
    return lambda *words: make_index(tmp_path / "out", *words)


def test_every_run_has_a_row(made):
    assert list(made.rows) == ["demo_b_fold_0", *(f"demo_fold_{fold}" for fold in range(4))]
    assert all(float(row["score"]) > 0 for row in made.rows.values())
    assert {row["hflip"] for row in made.rows.values()} == {"true", "false"}
    assert made.rows["demo_b_fold_0"]["seconds"] == "3661"


def test_the_command_says_what_came_of_a_run_and_what_it_wrote(pristine, call_main, tmp_path):
    outcome = call_main(main, pristine / "demo_b_fold_0", "--out", tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    first, *files = outcome.out.splitlines()
    assert re.fullmatch(r"demo_b_fold_0: epoch 0, score 0\.\d{4}, honest score 0\.\d{4}", first)
    names = ("runs.csv", "run_groups.csv", "index.html")
    assert files == [str(tmp_path / name) for name in names]
    assert all((tmp_path / name).is_file() for name in names)


def test_the_page_is_balanced_and_has_every_part(made):
    page = Page(made.text)
    assert re.findall(r"<h2>(.*?)</h2>", made.text) == [
        "Runs", "Runs that belong together", "Curves", "Commands", "The same in all"
    ]  # fmt: skip
    assert page.count("img") == 6  # four losses, scores by epoch and by threshold
    assert "1:01:01" in page.text
    assert "demo, 4 folds" in page.text


def test_runs_that_stand_alone_have_no_second_table(folder, index):
    text = index(folder, "--average-over", "nothing").text
    assert "belong together</h2>" not in text


def test_hostile_texts_are_shown_and_do_nothing(made):
    text = made.text
    page = Page(text)
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert page.count("script") == 1
    assert page.text.count(EVIL) == 5  # name and value of a setting, in two tables, and a date


def test_the_page_needs_nothing_and_allows_its_own_script_alone(made):
    text = made.text
    policy = dict(Page(text).tags)["meta"]
    assert policy is not None
    script = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'\">" in text
    assert "default-src 'none'; img-src data:;" in text
    for tag, attributes in Page(text).tags:
        if tag != "a":
            for name in ("src", "href"):
                assert (attributes.get(name) or "data:").startswith("data:")


def test_reports_that_are_there_are_linked(made):
    text = made.text
    (link,) = [attributes["href"] for tag, attributes in Page(text).tags if tag == "a"]
    assert (made.out / unquote(str(link))).read_text() == "a report"


def test_the_same_runs_give_the_same_page(folder, index):
    assert index(folder).text == index(folder).text


def test_reports_are_made_on_demand(trained, phantoms, index, tmp_path):
    run_dir = shutil.copytree(trained.dir, tmp_path / "runs" / trained.dir.name)
    describe_run(tmp_path / "runs", "stopped")
    text = index(tmp_path / "runs", "--reports", "--data-dir", phantoms).text
    assert "<h2>Gallery</h2>" in (run_dir / "report.html").read_text(encoding="utf-8")
    assert Page(text).count("a") == 1


def test_an_old_run_and_an_ensemble_have_a_row(index, tmp_path):
    with tarfile.open(ROOT / "tests" / "data" / "run_before_rooms.tar.xz") as archive:
        archive.extractall(tmp_path / "old", filter="data")
    rows = index(tmp_path / "old").rows
    ensemble, run = rows["demo_ensemble_fold_0"], rows["demo_fold_0"]
    assert (run["seed"], run["epochs"], ensemble["seed"], ensemble["epochs"]) == (
        "1234",
        "2",
        "",
        "",
    )
    assert run["ap_50"] == ensemble["seconds"] == ""


@pytest.mark.parametrize(
    "what", ["left the table", "stopped", "stopped at once", "undescribed", "unlabelled"]
)
def test_a_run_that_lacks_something_has_a_row_with_empty_cells(folder, index, what):
    name = {"left the table": "gone_fold_0", "undescribed": "demo_fold_0"}.get(
        what, "demo_x_fold_0"
    )
    if what == "left the table":
        save_epoch(describe_run(folder, "gone"), make_fold(0))
    elif what == "undescribed":
        (folder / name / "experiment.json").unlink()
    elif what == "unlabelled":
        fused = make_fold(0)
        unknown = np.full_like(fused.true_categories, UNKNOWN_CATEGORY)
        save_epoch(describe_run(folder, tag="x"), replace(fused, true_categories=unknown))
    else:
        run_dir = describe_run(folder, tag="x")
        if what == "stopped":
            save_losses(run_dir, [0.5])
    _, rows, text = index(folder)
    row = rows[name]
    assert {cell: bool(row[cell]) for cell in ("score", "n_epochs", "epochs")} == {
        "score": what in ("left the table", "undescribed"),
        "n_epochs": what != "undescribed",
        "epochs": what in ("stopped", "undescribed"),
    }
    Page(text)


def test_a_run_that_is_given_twice_has_one_row(folder, index):
    assert len(index(folder / "demo_fold_1", folder / "demo_fold_1", folder).rows) == 5


def test_the_default_place_is_the_output_folder(folder, call_main, tmp_path, monkeypatch):
    monkeypatch.setattr(config, "OUTPUT_DIR", tmp_path / "output")
    assert call_main(main, folder / "demo_fold_0").code == 0
    assert (tmp_path / "output" / "index" / "index.html").is_file()


def test_runs_without_anything_to_draw_have_no_curves(index, tmp_path):
    assert "<h2>Curves</h2>" not in index(describe_run(tmp_path)).text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{folder}/nothing"], "nothing: no such folder"),
        (["{folder}/empty"], "empty: holds no run"),
        (["{folder}/demo_fold_0", "{folder}/empty"], "empty: holds no run"),
        (["{folder}", "--data-dir", "a"], "--data-dir needs --reports"),
        (["{folder}", "--average-over", "models"], "--average-over"),
    ],
)
def test_bad_input_ends_with_one_line(folder, call_main, tmp_path, words, message):
    (folder / "empty").mkdir()
    words = [word.format(folder=folder) for word in words]
    outcome = call_main(main, *words, "--out", tmp_path / "out")
    assert outcome.code == 2
    (line,) = outcome.errors()
    assert message in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["experiment.json", "history.csv", "scores.npz"])
def test_a_broken_file_ends_with_one_line(folder, call_main, tmp_path, name):
    (folder / "demo_b_fold_0" / name).write_text("[")
    outcome = call_main(main, folder, "--out", tmp_path / "out")
    assert outcome.code == 2
    (line,) = outcome.errors()
    assert name in line


CLICKS = "document.querySelectorAll('th button')[{column}].click();"


@pytest.mark.skipif(not CHROMIUM, reason="needs chromium")
@pytest.mark.parametrize("n_clicks", [0, 1, 2])
def test_a_browser_sorts_the_table_by_a_click(made, tmp_path, n_clicks):
    _, rows, text = made
    column = re.findall('<button type="button">(.*?)</button>', text).index("score")
    clicks = n_clicks * CLICKS.format(column=column)
    digest = base64.b64encode(hashlib.sha256(clicks.encode()).digest()).decode()
    text = text.replace("script-src '", f"script-src 'sha256-{digest}' '")
    (tmp_path / "page.html").write_text(
        text.replace("</body>", f"<script>{clicks}</script></body>"), encoding="utf-8"
    )
    result = browse(tmp_path / "page.html", "--dump-dom")
    assert "CONSOLE" not in result.stderr
    table = re.findall(r"<tbody>(.*?)</tbody>", result.stdout, flags=re.DOTALL)[0]
    shown = [name for name in re.findall(r'data-key="(.*?)"', table) if name in rows]
    by_score = sorted(rows, key=lambda name: float(rows[name]["score"]))
    assert shown == [list(rows), by_score, by_score[::-1]][n_clicks]
