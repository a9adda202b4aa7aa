"""Every command in the README and in the guide runs, with small experiments on a few phantoms."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from src.datasets.annotations import read_records
from src.datasets.data_folder import DataFolder
from tests.conftest import HANGS_AFTER
from tests.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
RUN = ("README.md", "docs/guide.md")  # one after the other
DOCUMENTS = ["README.md", "CONTRIBUTING.md"]
DOCUMENTS += [f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")]
EXPORT = re.compile(r"^python src/export.py .*\.onnx.*$", flags=re.MULTILINE)
SCRIPTS = ("scripts/run_demo.sh", "scripts/run_tests.sh", "scripts/dataset_download.sh")


# One epoch finds nothing that could be scored or drawn: put the true boxes in its place.
TEACH = f"""
import dataclasses, pathlib, sys
import numpy as np
sys.path.append({str(ROOT)!r})
from src.prediction.predictions import load_predictions
path = pathlib.Path("output/demo_fold_0/predictions/000.npz")
known = load_predictions(path)
dataclasses.replace(
    known,
    offsets=known.true_offsets,
    boxes_xyxy=known.true_boxes_xyxy,
    scores=np.full(len(known.true_boxes_xyxy), 0.5, dtype=np.float32),
).save(path)
"""


def blocks_of(language, *documents):
    """Return what stands in the fenced blocks of a language."""
    text = "\n".join((ROOT / name).read_text(encoding="utf-8") for name in documents)
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def write_own_data(phantoms, place):
    """Make what the README calls yours: images, COCO annotations, and a detector's results."""
    shutil.copytree(phantoms / "stage_2_train_images", place / "my_data" / "train")
    images: list[Any] = []
    boxes: list[Any] = []
    for record in read_records(DataFolder(phantoms)):
        image = {"id": len(images), "file_name": f"{record.patient_id}.dcm"}
        images.append(image | {"width": 1024, "height": 1024})
        boxes += [{"image_id": image["id"], "category_id": 1, "bbox": box}
                  for box in record.boxes_xywh.tolist()]  # fmt: skip
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "opacity"}]}
    (place / "annotations.json").write_text(json.dumps(content))
    (place / "detections.json").write_text(json.dumps([box | {"score": 0.9} for box in boxes]))


def test_the_commands_run_one_after_the_other(phantoms, tmp_path):
    place = tmp_path / "a clone"
    place.mkdir()
    for name in ("src", "scripts"):
        (place / name).symlink_to(ROOT / name)
    (place / "my_images").symlink_to(phantoms / "stage_2_test_images")
    write_own_data(phantoms, place)
    blocks = [block for block in blocks_of("bash", *RUN) if "python" in block]
    for number, code in enumerate(blocks_of("python", *RUN)):
        (place / f"block_{number}.py").write_text(code)
        blocks.append(f"python block_{number}.py")
    script = "set -e\n" + "\n".join(blocks)
    script = re.sub(r"^MODEL=.*$", "MODEL=demo", script, flags=re.MULTILINE)
    script = re.sub(EXPORT, "", script)  # test_export.py runs it, if its packages are installed
    script = script.replace("--action train ", "--action train --num-epochs 1 ")
    script = script.replace("/009.npz", "/000.npz")
    trained = script.index("\n", script.index("--action train "))
    script = f"{script[:trained]}\npython teach.py{script[trained:]}"
    (place / "teach.py").write_text(TEACH)
    python_dir = Path(sys.executable).parent  # not resolved: the environment's own folder
    environment = os.environ | {
        "PATH": f"{python_dir}{os.pathsep}{os.environ['PATH']}",
        "PNEUMONIA_DATA_DIR": str(phantoms),
        "PNEUMONIA_OUTPUT_DIR": str(place / "output"),
        "OMP_NUM_THREADS": "1",
    }
    result = subprocess.run(
        ["bash", "-c", script],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        timeout=HANGS_AFTER,
    )
    assert result.returncode == 0, result.stderr
    run_dir = place / "output" / "demo_fold_0"
    made = {path.name for path in run_dir.iterdir()}
    assert {"experiment.json", "history.csv", "checkpoints", "predictions"} <= made
    assert {"scores.csv", "sweep.csv", "pics", "submission_test_000.csv"} <= made
    assert "score 1.0000" in result.stdout  # of the detections that are the truth
    assert (place / "output" / "val_loss.png").stat().st_size > 0


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_scripts_that_set_up_are_named_and_there(script):
    assert f"bash {script}" in README
    assert (ROOT / script).is_file()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_into_the_repository_leads_somewhere(name):
    links = re.findall(r"\]\(([^)]+)\)", (ROOT / name).read_text(encoding="utf-8"))
    for link in links:
        target, _, heading = link.partition("#")
        if "://" not in link:
            path = (ROOT / name).parent / target if target else ROOT / name
            assert path.exists(), link
            assert not heading or heading in anchors_of(path), link


def anchors_of(path):
    """Return the headings of a document as links name them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}
