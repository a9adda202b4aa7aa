#!/usr/bin/env bash
# Download the data of the RSNA Pneumonia Detection Challenge with Kaggle's client and unpack it.
#
#   scripts/dataset_download.sh [DIR]    default: config.DATA_DIR, so $PNEUMONIA_DATA_DIR or data/
#
# DIR then holds stage_2_train_images/*.dcm (26,684), stage_2_test_images/*.dcm (3,000) and three
# stage_2_*.csv. Run it again after an interruption: it continues. What is in DIR already is never
# overwritten.
set -euo pipefail
trap 'exit 130' INT # Kaggle's client catches Ctrl-C and ends with status 0

competition=rsna-pneumonia-detection-challenge
needed_gb=8 # the archive and, beside it, its contents: about 4 GB each
image_dirs=(stage_2_train_images stage_2_test_images)
tables=(stage_2_train_labels.csv stage_2_detailed_class_info.csv stage_2_sample_submission.csv)
items=("${image_dirs[@]}" "${tables[@]}")

say() { echo "dataset_download.sh: $*"; }
fail() { say "$*" >&2; exit 1; }

# Args: the first line, what went wrong.
fail_with_help() {
    say "$1" >&2
    cat >&2 <<END
  1. Install Kaggle's client:  "$python" -m pip install kaggle
  2. Create an API token on https://www.kaggle.com/settings/api and save it as
     ~/.kaggle/kaggle.json, or set KAGGLE_USERNAME and KAGGLE_KEY (newer tokens: KAGGLE_API_TOKEN).
  3. Accept the rules on https://www.kaggle.com/competitions/$competition/rules
  4. Run this script again; a download that was begun is continued.
RSNA publishes the images and annotations without Kaggle, too:
  https://www.rsna.org/artificial-intelligence/ai-image-challenge/rsna-pneumonia-detection-challenge-2018
END
    if [[ -f $root/scripts/import_rsna_release.py ]]; then
        echo "  scripts/import_rsna_release.py brings that release into the same layout." >&2
    fi
    exit 1
}

find_client() {
    if command -v kaggle; then return; fi
    [[ -x $root/.venv/bin/kaggle ]] && echo "$root/.venv/bin/kaggle"
}

count_patients() { # unique values of a table's first column
    awk -F, 'NR > 1 && $1 != "" && !seen[$1]++ { n++ } END { print n + 0 }' "$1"
}

count_images() { find "$1" -maxdepth 1 -name '*.dcm' | wc -l | tr -d ' '; }

# Print what keeps folder $1 from being the complete data set; nothing if it is complete.
find_problem() {
    local item n_images n_patients
    for item in "${items[@]}"; do
        if [[ ! -e $1/$item ]]; then echo "$item is missing"; return; fi
    done
    for item in "stage_2_train_images stage_2_train_labels.csv" \
        "stage_2_test_images stage_2_sample_submission.csv"; do
        n_images=$(count_images "$1/${item% *}")
        n_patients=$(count_patients "$1/${item#* }")
        if [[ $n_images -ne $n_patients || $n_images -eq 0 ]]; then
            echo "${item% *} has $n_images images, ${item#* } names $n_patients patients"
            return
        fi
    done
}

unzip_into() { # archive, folder
    local message
    message=$("$python" -m zipfile -e "$1" "$2" 2>&1) ||
        fail "could not unpack $1 (${message##*$'\n'}): run this again to continue the" \
            "download; if that does not help, delete the file or update Kaggle's client"
}

check_space() {
    local free_kb begun_kb
    free_kb=$(df -Pk "$dir" | sed -n '2s/.* \([0-9][0-9]*\)  *[0-9-]*% .*/\1/p')
    begun_kb=$(du -sk "$staging" | cut -f1)
    if ((free_kb + begun_kb < needed_gb * 1000 * 1000)); then
        fail "$dir has $((free_kb / 1000 / 1000)) GB free, the download and unpacking need" \
            "$needed_gb GB; free some space or name another folder"
    fi
}

download() {
    local client log=$staging/kaggle.log
    client=$(find_client) || fail_with_help "Kaggle's client, the command kaggle, was not found."
    mkdir -p "$downloads"
    check_space
    say "downloading to $downloads"
    if ! PYTHONUNBUFFERED=1 "$client" competitions download -c "$competition" -p "$downloads" \
        </dev/null 2>&1 | tee "$log"; then
        if grep -Eqi 'forbidden|accept.*rules' "$log"; then
            fail_with_help "Kaggle refuses the download; most likely step 3 is missing."
        elif grep -Eqi 'unauthorized|authentic|kaggle\.json' "$log"; then
            fail_with_help "Kaggle's client has no valid token: step 2 is missing."
        fi
        fail_with_help "Kaggle's client failed (its message is above)."
    fi
}

# The client leaves one archive with everything; older ones left a file for each item, and some
# items are zipped once more (X.csv.zip).
unpack() {
    local item folder
    rm -rf "$unpacking"
    mkdir "$unpacking"
    say "unpacking"
    if [[ -f $downloads/$competition.zip ]]; then
        unzip_into "$downloads/$competition.zip" "$unpacking"
    fi
    for item in "${items[@]}"; do
        for folder in "$unpacking" "$downloads"; do
            if [[ -e $unpacking/$item ]]; then
                break
            elif [[ -f $folder/$item ]]; then
                cp "$folder/$item" "$unpacking/$item"
            elif [[ -f $folder/$item.zip && $item == *.csv ]]; then
                unzip_into "$folder/$item.zip" "$unpacking"
            elif [[ -f $folder/$item.zip ]]; then
                unzip_into "$folder/$item.zip" "$unpacking/$item"
            fi
        done
    done
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." >/dev/null && pwd -P)
python=${PYTHON:-$root/.venv/bin/python}
if [[ -z ${PYTHON:-} && ! -x $python ]]; then python=python3; fi
if (($# > 1)) || [[ ${1:-} == -* ]]; then
    say "usage: dataset_download.sh [DIR]" >&2
    exit 2
fi
dir=${1:-$(PYTHONPATH=$root "$python" -c 'import config; print(config.DATA_DIR)')}
staging=$dir/.download
downloads=$staging/kaggle
unpacking=$staging/unpacking
ready=$staging/ready # complete, being moved to its place

problem=$(find_problem "$dir")
if [[ -n $problem ]]; then
    for item in "${items[@]}"; do
        # With $ready there, the items that it lacks were moved by an earlier run.
        if [[ -e $dir/$item && ( ! -d $ready || -e $ready/$item ) ]]; then
            say "$dir already has $item, but $problem; nothing was changed: move it away or" \
                "name another folder" >&2
            exit 2
        fi
    done
    mkdir -p "$staging"
    if [[ ! -d $ready ]]; then
        download
        unpack
        problem=$(find_problem "$unpacking")
        [[ -z $problem ]] || fail "the download is not complete ($problem): delete $downloads" \
            "and run this again"
        mv "$unpacking" "$ready"
    fi
    for item in "${items[@]}"; do
        if [[ -e $ready/$item ]]; then mv "$ready/$item" "$dir/$item"; fi
    done
    problem=$(find_problem "$dir")
    [[ -z $problem ]] || fail "$dir is not complete: $problem"
fi
rm -rf "$staging"
say "$dir is complete: $(count_images "$dir/stage_2_train_images") training images," \
    "$(count_images "$dir/stage_2_test_images") test images"
