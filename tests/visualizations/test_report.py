import json
import re
import shutil
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from src.datasets.data_folder import DataFolder
from src.experiments.history import write_history
from src.prediction.presets import Postprocess
from src.prediction.saved_epochs import load_epoch
from src.scoring.grid import Grid, sweep_run
from src.scoring.honest import honest_score
from src.scoring.matching import find_boxes
from src.scoring.quoted_numbers import compute_numbers
from src.scoring.run_scores import choose_scores
from src.scoring.scored_images import scored_predictions
from src.visualizations.number_panels import PANELS
from src.visualizations.report import build_page, main
from src.visualizations.report_sections import write_headline
from src.visualizations.report_settings import write_settings
from tests.made_predictions import WHOLE, make_predictions, save_epoch, save_run, with_weak_boxes
from tests.pages import CHROMIUM, Page, browse

EVIL = '<script>alert("1")&amp;<img src=x onerror=alert(2)>'
RUN_NAME = "a run & <b>more"
IDS = (EVIL, "second", "third")
SETTINGS = {
    "model": EVIL,
    "tag": None,
    "settings": {"encoder": "resnet18", "img_size": 192, "pyramid_levels": [3, 4], "hflip": False},
    "command": ["train_runner.py", "--run", "a b"],
    "versions": {EVIL: EVIL},
}
LOSSES = ("loss", "classification", "regression", "global_classification")
CORNER = [120, 120, 180, 180]


class Example(NamedTuple):
    run_dir: Path
    data_dir: Path

    def page(self, *, epoch=None, n_images=6):
        return build_page(self.run_dir, self.data_dir, epoch=epoch, n_images=n_images)


def images_of(epoch):
    """Two hits, a false positive and a missed box; epoch 0 has one hit less."""
    first = ([WHOLE], [(WHOLE, 0.9)] if epoch == 1 else [(CORNER, 0.9)])
    return first, ([], [(CORNER, 0.55)]), ([WHOLE, CORNER], [(WHOLE, 0.8)])


def save_images(run_dir, epoch, *, ids=IDS, **changes):
    save_epoch(
        run_dir, replace(make_predictions(*images_of(epoch), ids=ids, epoch=epoch), **changes)
    )


@pytest.fixture(scope="module")
def pristine(phantoms, tmp_path_factory):
    """Return a run of three images and two epochs, and the data folder; hostile texts in both."""
    folder = tmp_path_factory.mktemp("report")
    run_dir, data_dir = folder / RUN_NAME, folder / "data"
    (data_dir / "train").mkdir(parents=True)
    paths = sorted(DataFolder(phantoms).images_dir("train").glob("*.dcm"))[: len(IDS)]
    for name, path in zip(IDS, paths, strict=True):
        shutil.copy2(path, data_dir / "train" / f"{name}.dcm")
    for epoch in (0, 1):
        save_images(run_dir, epoch)
    rows = [{"epoch": epoch} | {f"{part}_{name}": 1.0 / (epoch + 1) for name in LOSSES
             for part in ("train", "valid")} for epoch in (0, 1)]  # fmt: skip
    write_history(run_dir / "history.csv", rows)
    (run_dir / "experiment.json").write_text(json.dumps(SETTINGS))
    sweep_run(run_dir).save(run_dir / "scores.npz")
    return Example(run_dir, data_dir)


@pytest.fixture
def example(pristine, tmp_path):
    """Return a copy that may be changed."""
    shutil.copytree(pristine.run_dir, tmp_path / RUN_NAME)
    shutil.copytree(pristine.data_dir, tmp_path / "data")
    return Example(tmp_path / RUN_NAME, tmp_path / "data")


@pytest.fixture(scope="module")
def best(pristine):
    """Return the page of the best epoch."""
    return pristine.page()


@pytest.fixture(scope="module")
def worse(pristine):
    """Return the page of the other epoch."""
    return pristine.page(epoch=0)


def section(text, title):
    """The part of a page below a heading."""
    return re.split("<h[23]", text.split(f">{title}</h")[1])[0]


def chapter(text, title):
    """The part of a page below a heading, with all that is below its own headings."""
    return text.split(f"<h2>{title}</h2>")[1].split("<h2>")[0]


def test_the_page_is_balanced_and_has_every_part(best):
    page = Page(best)
    assert re.findall(r"<h2>(.*?)</h2>", best) == [
        "Curves", "Scores", "Numbers that papers quote", "Gallery", "Settings"
    ]  # fmt: skip
    assert page.count("h1") == 1
    assert page.count("img") == 5  # two figures of curves, a heat map, ROC and reliability


def test_the_page_needs_nothing_from_elsewhere(best):
    for _, attributes in Page(best).tags:
        for name in ("src", "href", "xlink:href", "data", "srcset", "action"):
            assert (attributes.get(name) or "data:").startswith("data:")
    style = best.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    assert "http" not in re.sub(r"base64,[^\"]*", "", best).replace("http-equiv", "")


def test_the_page_forbids_scripts_and_holds_none(best):
    assert "Content-Security-Policy" in best
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in best
    assert Page(best).count("script") == 0


def test_the_curves_say_what_the_median_epoch_cost(example, best):
    path = example.run_dir / "history.csv"
    table = pd.read_csv(path)
    table = pd.concat([table, table.tail(1).assign(epoch=2)])
    table["seconds"], table["valid_seconds"] = [1200, 1300, 5000], [200.0, 200.25, 200]
    table["images_per_second"], table["waiting_share"] = [9, 80.5, 90], [0.5, 0.034, 0.01]
    table.to_csv(path, index=False)
    assert "The median epoch took" not in chapter(example.page(), "Curves")  # one is missing
    table["peak_memory_mb"] = [9000, 9100, 9200]
    table.to_csv(path, index=False)
    assert (
        "The median epoch took 1,300.0 seconds, 200.0 of them for validation. Training took 80.5 "
        "images a second and waited for data 3% of its time; the peak of memory was 9,200 MB."
    ) in chapter(example.page(), "Curves")
    assert "The median epoch took" not in best


def test_hostile_texts_are_shown_and_do_nothing(best):
    page = Page(best)
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert page.text.count(EVIL) >= 4  # the image, the model, a version's name and number
    assert page.text.count(RUN_NAME) == 2  # the heading and the browser's tab


def test_the_headline_has_the_best_score_and_the_counts(best):
    headline = best.split("<h2>")[0]
    numbers = re.findall(r"<b>(.*?)</b><span>(.*?)</span><small>(.*?)</small>", headline)
    values = {name: (value, note) for value, name, note in numbers}
    # scores 1, 0 and 1/2; at threshold 3 the false positive of .55 x 5 no longer counts
    assert values["challenge&#x27;s score"][0] == "0.750"
    assert values["epoch"] == ("1", "score × 5 &gt; 3, NMS 0.05")
    assert values["true boxes hit"] == ("2 of 3", "recall 0.667")
    assert values["found boxes false"] == ("0 of 2", "precision 1.000")
    assert values["false alarms"][0] == "0 of 1"


def test_the_epoch_can_be_named(pristine, worse):
    assert "<b>0</b><span>epoch</span>" in worse
    assert "<b>1 of 3</b><span>true boxes hit</span>" in worse
    with pytest.raises(ValueError, match=r"epoch 7.*\[0, 1\]"):
        pristine.page(epoch=7)


def test_the_gallery_has_a_picture_for_each_entry(pristine, worse):
    n_pictures = {title: section(worse, title).count("<image ") for title in (
        "Worst false positives", "Missed boxes", "Loosest hits", "Best hits"
    )}  # fmt: skip
    # threshold 3: one of the two false positives counts
    assert n_pictures == {
        "Worst false positives": 1, "Missed boxes": 2, "Loosest hits": 1, "Best hits": 1
    }  # fmt: skip
    pictures = Page(worse)
    assert pictures.count("image") == pictures.count("figure") == 5
    assert Page(pristine.page(epoch=0, n_images=1)).count("figure") == 4


def test_an_entry_tells_image_classes_and_reason(best):
    part = section(best, "Missed boxes")
    assert "<code>third</code>" in part
    assert "no candidate reaches IoU 0.40 with it; image scores 0.50" in part
    bars = re.findall(r'class="(prob.*?)"><span>(.*?)</span>.*?<span>(.*?)</span>', part)
    assert bars == [
        ("prob", "No Lung Opacity / Not Normal", "0.20"),
        ("prob", "Normal", "0.30"),
        ("prob is-true", "Lung Opacity", "0.50"),
    ]


def test_an_empty_list_says_so(best):
    assert "None." in section(best, "Worst false positives")


def test_the_settings_are_all_there(best):
    for cells in (
        ("encoder", "resnet18"),
        ("img_size", "192"),
        ("pyramid_levels", "3, 4"),
        ("hflip", "no"),
        ("command", "train_runner.py --run &#x27;a b&#x27;"),
        ("tag", "–"),
    ):
        assert "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>" in best
    assert '<p class="note">encoder resnet18, img_size 192</p>' in best


def test_the_best_epoch_is_marked_in_the_table(best):
    part = section(best, "Best of each epoch")
    assert "<tr class=best><td>1</td><td>0.750</td><td>3</td></tr>" in part
    assert part.count("class=best") == 1
    assert "<tr><td>0</td><td>0.250</td>" in part


def test_the_quoted_numbers_are_those_of_the_epoch_and_setting_shown(example):
    save_epoch(example.run_dir, with_weak_boxes(make_predictions(*images_of(1), ids=IDS, epoch=1)))
    text = chapter(example.page(), "Numbers that papers quote")
    shown = choose_scores(example.run_dir, None)
    data = scored_predictions(load_epoch([example.run_dir], 1), shown.postprocess)
    rows = re.findall("<tr>((?:<td>[^<]*</td>)+)</tr>", text)
    results = compute_numbers(data, 200)
    assert len(rows) == len(results) == 28
    for cells, result in zip(rows, results, strict=True):
        *names, value, interval = re.findall("<td>(.*?)</td>", cells)
        expected = (result.image_score, result.text) if result.image_score else (result.text,)
        assert tuple(map(unescape, names)) == expected
        assert value == f"{result.value:.3f}"
        assert interval == f"{result.low:.3f} to {result.high:.3f}"
    assert "Epoch 1; boxes by score × 5, NMS 0.05." in text
    assert "by 200 draws of patients" in text


def test_each_panel_says_how_it_is_read(example):
    save_epoch(example.run_dir, with_weak_boxes(make_predictions(*images_of(1), ids=IDS, epoch=1)))
    text = chapter(example.page(), "Numbers that papers quote")
    assert text.count("<img ") == len(PANELS) == 4
    for panel in PANELS:
        assert panel.reading.count(". ") == 0
        part = section(text, panel.title)
        assert f'<p class="note">{panel.reading}</p>' in part
        assert f'<img alt="{panel.title}"' in part


def test_a_run_without_weaker_boxes_says_so_in_place_of_curves_and_numbers(best):
    text = chapter(best, "Numbers that papers quote")
    for title in ("Of boxes", *(panel.title for panel in PANELS[:2])):
        part = section(text, title)
        assert "Saved without weaker boxes" in part
        assert "<img" not in part
        assert "<table" not in part
    assert text.count("<img ") == 2
    assert "nan" not in re.sub(r"base64,[^\"]*", "", text)


def test_the_same_run_gives_the_same_page(pristine, best):
    assert pristine.page() == best


def test_missing_scores_are_computed_and_not_saved(example, best, listing):
    (example.run_dir / "scores.npz").unlink()
    before = listing(example.run_dir)
    text = example.page()
    assert listing(example.run_dir) == before
    assert "computed for this page" in text
    assert "computed for this page" not in best
    assert "<b>0.750</b>" in text


def test_an_epoch_that_scores_npz_lacks_is_scored_and_named(example):
    sweep_run(example.run_dir, [0], Grid(nms=(0.3,))).save(example.run_dir / "scores.npz")
    assert choose_scores(example.run_dir, None).epoch == 0
    shown = choose_scores(example.run_dir, 1)
    assert (shown.epoch, shown.postprocess.threshold, shown.postprocess.nms) == (1, 3.0, 0.3)
    assert "epoch 1" in shown.notes[0]


def test_a_wider_sweep_is_told_where_there_is_one(example, best):
    assert "python src/scores.py" in section(best, "Wider sweep")
    grid = Grid(nms=(0.05, 0.5), gates=("score", "score_category"))
    sweep = sweep_run(example.run_dir, grid=grid)
    sweep.save(example.run_dir / "sweep.npz")
    part = section(example.page(), "Wider sweep")
    assert "Best of 144 settings: 0.750." in part
    assert "<td>NMS</td><td>0.05</td><td>0.05, 0.5</td>" in part


def test_settings_and_curves_may_be_missing(example):
    for name in ("experiment.json", "history.csv"):
        (example.run_dir / name).unlink()
    page = Page(example.page())
    assert "experiment.json is not in the run's folder" in page.text
    assert "history.csv is not in the run's folder" in page.text
    assert "None" not in write_settings({"a": None})


@pytest.mark.parametrize("out", [None, "new folder/page.html"])
def test_the_command_writes_the_page(example, best, call_main, tmp_path, out):
    flags = ["--out", tmp_path / out] if out else []
    outcome = call_main(main, example.run_dir, "--data-dir", example.data_dir, *flags)
    path = tmp_path / out if out else example.run_dir / "report.html"
    assert outcome == (0, f"{path}\n", "")
    assert path.read_text(encoding="utf-8") == best


def remove_images(example):
    shutil.rmtree(example.data_dir / "train")


def remove_image(example):
    (example.data_dir / "train" / "third.dcm").unlink()


def exchange_image(example):
    save_images(example.run_dir, 1, image_sizes=np.full((3, 2), 512))


def forget_truth(example):
    (example.run_dir / "scores.npz").unlink()
    forget_truth_of_a_scored_epoch(example)


def forget_truth_of_a_scored_epoch(example):
    save_images(example.run_dir, 1, true_categories=np.full(3, -1))


def leave_the_folder(example):
    save_images(example.run_dir, 1, ids=("../../first", "second", "third"))


def remove_run(example):
    shutil.rmtree(example.run_dir)


def remove_predictions(example):
    shutil.rmtree(example.run_dir / "predictions")


def break_settings(example):
    (example.run_dir / "experiment.json").write_text("[1]")


def break_scores(example):
    (example.run_dir / "scores.npz").write_text("no scores")


@pytest.mark.parametrize(
    ("harm", "flags", "words"),
    [
        (remove_run, [], [RUN_NAME, "no such folder"]),
        (remove_predictions, [], ["predictions", "--action train"]),
        (remove_images, [], ["no such folder of images"]),
        (remove_image, [], ["third.dcm"]),
        (exchange_image, [], ["is 1024 x 1024 pixels", "512 x 512"]),
        (forget_truth, [], ["no true boxes"]),
        (forget_truth_of_a_scored_epoch, [], ["no true boxes"]),
        (leave_the_folder, [], ["no such file"]),
        (break_settings, [], ["experiment.json", "not the settings of a run"]),
        (break_scores, [], ["scores.npz"]),
        (None, ["--epoch", "5"], ["epoch 5", "[0, 1]"]),
        (None, ["--num-images", "0"], ["--num-images: 0"]),
        (None, ["--epoch", "-1"], ["--epoch: -1"]),
    ],
)
def test_bad_input_ends_with_one_line(example, call_main, listing, harm, flags, words):
    if harm:
        harm(example)
    before = listing(example.run_dir.parent)
    outcome = call_main(main, example.run_dir, "--data-dir", example.data_dir, *flags)
    assert outcome.code == 2
    (line,) = outcome.errors()
    assert line.startswith("error: ")
    for word in words:
        assert word in line
    assert listing(example.run_dir.parent) == before


@pytest.mark.skipif(not CHROMIUM, reason="needs chromium")
def test_a_browser_shows_the_page_without_complaint(best, tmp_path, read_picture):
    page, shot = tmp_path / "page.html", tmp_path / "shot.png"
    page.write_text(best, encoding="utf-8")
    result = browse(page, "--dump-dom")
    for heading in ("Curves", "Scores", "Gallery", "Missed boxes", "Settings"):
        assert re.search(f"<h[23]>{heading}</h", result.stdout)
    assert "CONSOLE" not in result.stderr
    browse(page, f"--screenshot={shot}", "--window-size=1200,6000")
    picture = read_picture(shot).astype(int)
    for colour in ((86, 180, 233), (230, 159, 0)):  # true and found boxes
        assert (np.abs(picture - colour).max(axis=-1) < 8).sum() > 500


def test_the_images_lie_where_they_lay_at_the_training(call_main, example):
    settings = SETTINGS | {"images": str(example.data_dir / "train")}
    (example.run_dir / "experiment.json").write_text(json.dumps(settings))
    outcome = call_main(main, example.run_dir)
    assert (outcome.code, outcome.err) == (0, "")


def test_the_page_gives_the_score_at_settings_that_other_images_chose(tmp_path):
    run_dir = save_run(tmp_path, 0, 1)
    sweep = sweep_run(run_dir)
    expected = honest_score([run_dir], sweep)
    findings = find_boxes(load_epoch([run_dir], 1), Postprocess())
    assert f"Honest score: {expected.score:.3f}</b>" in write_headline(findings, 1, expected)
    assert "Honest" not in write_headline(findings, 1, None)
