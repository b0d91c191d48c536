#!/usr/bin/env bash
# docker run IMAGE RUN_NAME [flags]: that run; --help: its flags; anything else is run as it is.
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
# shellcheck source=env.sh
. ./env.sh
case "${1:-}" in
  # a wrong name is told the nearest ones
  *_Train | *_Infer | -*) exec "$PYTHON" proofrun/launch.py "$@" ;;
esac
exec "$@"
