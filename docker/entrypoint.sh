#!/usr/bin/env bash
# docker run IMAGE RUN_NAME [flags]: the run script of that name; anything else is run as it is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# every cache goes to /tmp, the one place that can be written where the root is read-only
export HOME=/tmp/home XDG_CACHE_HOME=/tmp/cache MPLCONFIGDIR=/tmp/cache/matplotlib
export TORCHINDUCTOR_CACHE_DIR=/tmp/cache/inductor TRITON_CACHE_DIR=/tmp/cache/triton
export PYTHONDONTWRITEBYTECODE=1
# a user id without a name has no login: libraries that ask for one read this
export USER="${USER:-proofrun}"
mkdir -p "$HOME" "$MPLCONFIGDIR"
# a base image with the checkout mounted has no /opt/venv: its own interpreter then
if [[ ! -x "${PYTHON:-/opt/venv/bin/python}" ]]; then export PYTHON=python3; fi
export PYTHON="${PYTHON:-/opt/venv/bin/python}"
if [[ -f "run_scripts/${1:-}.sh" ]]; then
  script="run_scripts/$1.sh"
  shift
  exec bash "$script" "$@"
fi
exec "$@"
