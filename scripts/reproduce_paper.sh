#!/usr/bin/env bash
# The paper again: its trainings, figures, out-of-fold score, ensembles, submission and leaderboard.
#
#   bash scripts/reproduce_paper.sh                       all of it, on all GPUs; days
#   bash scripts/reproduce_paper.sh --estimate            how much is left, and about how many hours
#   bash scripts/reproduce_paper.sh --only encoders       one of the plans in scripts/paper/
#   bash scripts/reproduce_paper.sh --rehearse [FOLDER]   all of it on phantoms, by small networks:
#                                                         ten minutes on two CPU cores; rehearsal/
#
# Other flags go to scripts/run_experiments.py, such as --jobs 2 or -- --cache. What is done is kept:
# a reproduction that was interrupted goes on. Data and output lie where config.py says.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." >/dev/null && pwd -P)
best=se_resnext101_dr0.75_512
epochs=(9 10 11 12)                # of the ensembles
estimate=(--epoch-minutes 50)      # of the paper, on a P100, with its largest network
plans=() flags=() changes=() run=() rehearsal='' only_estimate=''

while (($#)); do
    case $1 in
        --estimate) only_estimate=yes ;;
        --only) plans+=("$root/scripts/paper/${2:?--only needs the name of a plan}.toml"); shift ;;
        --rehearse)
            rehearsal=$root/rehearsal
            if [[ ${2:--} != -* ]]; then rehearsal=$2; shift; fi
            ;;
        *) flags=("$@"); break ;;
    esac
    shift
done
((${#plans[@]})) || plans=("$root"/scripts/paper/*.toml)

bash "$root/create_env.sh"
python=${PYTHON:-$root/.venv/bin/python}

step() { printf '\n== %s\n' "$*"; }
src() { local script=$1; shift; "$python" "$root/src/$script" "$@"; }
runner() { src train_runner.py --model "$best" "${run[@]}" "$@"; }
queue() {
    "$python" "$root/scripts/run_experiments.py" "${run[@]}" "${changes[@]}" --plan "$@"
}

if [[ $rehearsal ]]; then
    step "chest phantoms in place of the challenge's data, small networks in place of the paper's"
    export PNEUMONIA_DATA_DIR=$rehearsal/data PNEUMONIA_OUTPUT_DIR=$rehearsal/output
    "$python" "$root/scripts/make_demo_dataset.py" --out "$PNEUMONIA_DATA_DIR" --n-train 128 --n-test 24
    run=(--run rehearsal) epochs=(3 4) estimate=()
    changes=(--set encoder=timm/regnetx_002 pretrained=false dropout_class=0 dropout_global=0
        img_size=192 'pyramid_levels=4,5,6' anchor_size=2 pyramid_width=48 head_depth=2 batch_size=4
        learning_rate=0.002 clip_norm=1 scheduler=one_cycle n_epochs=5)
    flags=(--jobs 2 "${flags[@]}" -- --num-workers 0)
fi
data=${PNEUMONIA_DATA_DIR:-$root/data}
output=${PNEUMONIA_OUTPUT_DIR:-$root/output}
paper=$output/paper

step "what is left; hours of one GPU are an estimate: the paper's 50 minutes an epoch, on a P100"
queue "${plans[@]}" --dry-run --jobs 1 "${estimate[@]}" | grep '^#'
if [[ $only_estimate ]]; then exit; fi

step "look at the data"
runner --action check_data --out "$paper/check_data.csv"

step "train"
queue "${plans[@]}" "${flags[@]}"

for plan in "${plans[@]}"; do
    name=$(basename "$plan" .toml)
    step "$name: losses and scores by epoch"
    mapfile -t runs < <(queue "$plan" --list-runs)
    src visualizations/plot_val_loss.py "${runs[@]}" --loss regression --out "$paper/${name}_val_loss.png"
    src visualizations/plot_metrics.py "${runs[@]}" --out "$paper/${name}_metrics.png"
    if [[ $name == folds ]]; then continue; fi
    step "$name: which is better, and could that be chance"
    src compare.py "${runs[@]}" --out "$paper/${name}_compared"
done
if [[ " ${plans[*]} " != *"/folds.toml "* ]]; then exit; fi

step "the best network: score of each fold, and out of fold of all images"
mapfile -t runs < <(queue "$root/scripts/paper/folds.toml" --list-runs)
src scores.py "${runs[@]}" --numbers

step "the best network: figures, and a report to mail"
for kind in sweep detections global_head numbers; do
    src "visualizations/plot_$kind.py" "${runs[0]}" --out "$paper/$kind.png"
done
src visualizations/report.py "${runs[0]}" --out "$paper/report.html"
src visualizations/eda.py --out "$paper/eda"

submissions=()
for preset in plain paper second-place; do
    step "ensemble of four folds and ${#epochs[@]} epochs each, boxes chosen as in preset $preset"
    folder=$paper/ensemble_$preset
    runner --action generate_predictions --folds 0 1 2 3 --epochs "${epochs[@]}" --split test \
        --postprocess "$preset" --out "$folder"
    src submission.py check "$folder/submission.csv" --sample "$data/stage_2_sample_submission.csv"
    src submission.py stats "$folder/submission.csv" --data-dir "$data"
    submissions+=("$folder/submission.csv")
done

truth=$data/stage_2_test_labels.csv
if [[ -f $truth ]]; then
    step "the leaderboard, offline"
    src scores.py "${submissions[@]}" --truth "$truth"
else
    step "no leaderboard: $truth is not there; scripts/import_rsna_release.py makes it"
fi

step "everything lies in $paper"
printf '%s\n' "$paper"/*
