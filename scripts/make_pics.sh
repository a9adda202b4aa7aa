#!/usr/bin/env bash
# Remake the figures in pics/ from the demo; run scripts/run_demo.sh first.
#
#   bash scripts/make_pics.sh [FOLDER]     the demo's folder, default: demo/ in the repository
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." >/dev/null && pwd -P)
demo=${1:-$root/demo}
python=${PYTHON:-$root/.venv/bin/python}
run=$demo/output/lite0_192_fold_0
[[ -f $run/scores.npz ]] || run=$demo/output/demo_fold_0  # without pretrained weights
if [[ ! -f $run/scores.npz ]]; then
    echo "make_pics.sh: $run holds no scored run; scripts/run_demo.sh makes it" >&2
    exit 2
fi

made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
plot() { local script=$1; shift; "$python" "$root/src/visualizations/$script" "$@" >/dev/null; }

plot eda.py --data-dir "$demo/data" --out "$made"
plot plot_val_loss.py "$run" --loss regression classification --out "$made/val_loss"
plot plot_metrics.py "$run" --out "$made/metrics"
plot plot_sweep.py "$run" --out "$made/sweep"
plot plot_detections.py "$run" --out "$made/detections"
plot plot_global_head.py "$run" --out "$made/global_head"
"$python" "$root/scripts/draw_encodings.py" --out "$made/grey_values.png"

# Pictures with photographs in them are smaller as JPEG; all are reduced to the width of a page.
PYTHONPATH=$root "$python" - "$made" "$run" "$root/pics" <<'PYTHON'
import sys
from pathlib import Path

import cv2

from src.system.files import replaced_file

MAX_WIDTH = 1500
PHOTOGRAPHS = {"examples", "augmentation", "rotation_example", "overview", "grey_values"}
made, run, pics = map(Path, sys.argv[1:])
newest = max(run.glob("pics/*/overview.png"))
for source in [newest, *sorted(made.glob("*.png"))]:
    picture = cv2.imread(str(source))
    factor = min(1.0, MAX_WIDTH / picture.shape[1])
    picture = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    name = "demo" if source.stem == "overview" else source.stem
    suffix = ".jpg" if source.stem in PHOTOGRAPHS else ".png"
    options = [cv2.IMWRITE_JPEG_QUALITY, 85] if suffix == ".jpg" else []
    _, encoded = cv2.imencode(suffix, picture, options)
    with replaced_file(pics / f"{name}{suffix}") as temporary:
        temporary.write_bytes(encoded.tobytes())
    print(pics / f"{name}{suffix}")
PYTHON
