#!/usr/bin/env bash
# Train a small detector again and again while it is killed, fed with broken images and refused
# disk space; at the end show that nothing was lost. Arguments go to scripts/soak.py.
#
#   bash scripts/soak.sh                 ten minutes
#   bash scripts/soak.sh --minutes 1     what continuous integration runs
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." >/dev/null && pwd -P)
bash "$root/create_env.sh"
exec "${PYTHON:-$root/.venv/bin/python}" "$root/scripts/soak.py" "$@"
