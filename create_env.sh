#!/usr/bin/env bash
# Make the Python environment .venv beside this file and install requirements.txt into it.
#
#   source create_env.sh         set up if needed, then activate it in this shell (bash or zsh)
#   bash create_env.sh           set up if needed
#   bash create_env.sh --tests   the same, with what the checks need (tests/requirements.txt)
#
# With conda on the PATH .venv becomes a conda environment, otherwise a venv. A finished set-up is
# left alone, an interrupted one continued. With PYTHON=/path/to/python in the environment that
# interpreter is used as it is and nothing is set up (containers).

[ -n "${BASH_VERSION:-}${ZSH_VERSION:-}" ] || exec bash "$0" "$@"

# Sourced: a bash of its own does the work, so that this shell keeps its options, variables and
# functions; only the activation happens here.
if [ -n "${ZSH_VERSION:-}" ] || [ "${BASH_SOURCE[0]}" != "$0" ]; then
    CREATE_ENV_SOURCED=1 bash "${BASH_SOURCE[0]:-$0}" "$@" || return
    if [ -n "${PYTHON:-}" ]; then
        return 0
    elif [ -d "$(dirname "${BASH_SOURCE[0]:-$0}")/.venv/conda-meta" ]; then
        # shellcheck source=/dev/null
        . "$(conda info --base)/etc/profile.d/conda.sh" || return
        conda activate "$(dirname "${BASH_SOURCE[0]:-$0}")/.venv"
    else
        # shellcheck source=/dev/null
        . "$(dirname "${BASH_SOURCE[0]:-$0}")/.venv/bin/activate"
    fi
    return
fi

set -euo pipefail

say() { echo "create_env.sh: $*"; }
fail() { say "$*" >&2; exit 1; }

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# An environment counts if its Python runs, has pip, and its activation leads here: a venv that
# was moved with its folder still activates the old place.
is_intact() {
    is_new_enough "$env_python" && "$env_python" -c 'import pip' 2>/dev/null || return 1
    # shellcheck source=/dev/null
    [[ -d $env_dir/conda-meta ]] ||
        (. "$env_dir/bin/activate" && [[ $VIRTUAL_ENV == "$env_dir" ]]) 2>/dev/null
}

find_python() {
    local name
    for name in python3.11 python3.12 python3.13 python3 python; do
        # Run it: a version manager's stand-in may be on the PATH and refuse to start.
        if is_new_enough "$name"; then command -v "$name"; return; fi
    done
    fail "no Python 3.11 or newer on the PATH; install one, or conda, and run this again"
}

make_environment() {
    local python
    if command -v conda >/dev/null; then
        say "making a conda environment with Python 3.11 in $env_dir"
        rm -rf "$env_dir"
        # conda-forge: a fresh Miniconda refuses its default channels until their terms are accepted.
        conda create --yes --quiet --prefix "$env_dir" --override-channels --channel conda-forge \
            python=3.11 pip ||
            fail "conda could not make the environment (its message is above); without internet" \
                "this cannot work"
    else
        python=$(find_python)
        say "making an environment with $python in $env_dir"
        "$python" -m venv --clear "$env_dir" ||
            fail "$python -m venv failed (its message is above); on Debian and Ubuntu it needs" \
                "the package python3-venv"
    fi
}

# What the stamps hold: it changes with the requirement files.
checksum() { cat "$@" | cksum; }

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" >/dev/null && pwd -P)
env_dir=$root/.venv
env_python=$env_dir/bin/python
base_stamp=$env_dir/.requirements-installed
tests_stamp=$env_dir/.tests-requirements-installed

case "$*" in
    "") stamp=$base_stamp files=("$root/requirements.txt") ;;
    --tests)
        stamp=$tests_stamp
        files=("$root/tests/requirements.txt" "$root"/requirements{,-export,-pretrained}.txt)
        ;;
    *) say "unknown arguments: $*; usage: create_env.sh [--tests]" >&2; exit 2 ;;
esac

if [[ -n ${PYTHON:-} ]]; then
    is_new_enough "$PYTHON" || fail "PYTHON=$PYTHON does not run or is older than Python 3.11"
    say "PYTHON=$PYTHON is used as it is, nothing is set up"
    exit
fi

wanted=$(checksum "${files[@]}")
if ! is_intact; then
    make_environment
elif [[ -f $stamp && $(<"$stamp") == "$wanted" ]]; then
    say "$env_dir is ready"
    exit
fi

say "installing ${files[0]#"$root/"} into $env_dir (downloads several GB the first time)"
rm -f "$base_stamp" "$tests_stamp"
# The user's own site-packages must not count as installed: another account would miss them.
PYTHONNOUSERSITE=1 "$env_python" -m pip install --requirement "${files[0]}" || {
    free_kb=$(df -Pk "$env_dir" | sed -n '2s/.* \([0-9][0-9]*\)  *[0-9-]*% .*/\1/p')
    fail "pip could not install ${files[0]#"$root/"} (its message is above; no internet, or no space?" \
        ".venv takes about 6 GB, $((free_kb / 1000000)) GB more are free); run this again when that" \
        "is mended, it continues where it stopped"
}
checksum "$root/requirements.txt" >"$base_stamp"
echo "$wanted" >"$stamp"

say "$env_dir is ready: $("$env_python" --version)"
if [[ -n ${CREATE_ENV_SOURCED:-} ]]; then
    exit
elif [[ -d $env_dir/conda-meta ]]; then
    say "activate it with: conda activate \"$env_dir\""
else
    say "activate it with: source \"$env_dir/bin/activate\""
fi
