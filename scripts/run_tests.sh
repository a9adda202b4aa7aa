#!/usr/bin/env bash
# Run every check: ruff, mypy, pytest. Arguments go to pytest, paths in them start at the root.
#
#   scripts/run_tests.sh
#   scripts/run_tests.sh tests/test_metric.py -k iou
#   scripts/run_tests.sh -n 0        in one process, as plain pytest
#
# A failing check does not stop the others; the status is 0 only if all passed. Sets up .venv
# first where needed; PYTHON=/path/to/python uses that interpreter instead.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.." >/dev/null
bash create_env.sh --tests
python=${PYTHON:-.venv/bin/python}

status=0
check() {
    echo "run_tests.sh: $*"
    "$python" -m "$@" || { status=$?; echo "run_tests.sh: failed: $*" >&2; }
}

check ruff check .
check ruff format --check .
check mypy
# Last, and without a line after it: its summary is what the reader looks for.
echo "run_tests.sh: pytest $*"
# A process a core, each with one thread: more threads than cores only wait for one another.
# Above four, what every process sets up for itself costs more than the others save. The tests of
# a file share a process, and with it what they set up.
export OMP_NUM_THREADS=1
processes=(--numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder)
"$python" -m pytest "${processes[@]}" "$@" || status=$?
exit "$status"
