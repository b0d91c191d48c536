#!/usr/bin/env bash
# docker run IMAGE RUN_NAME [flags]: that run; --help: its flags; anything else is run as it is.
set -euo pipefail
CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.."
# every cache goes to /tmp, the one place that can be written where the root is read-only
export HOME=/tmp/home XDG_CACHE_HOME=/tmp/cache MPLCONFIGDIR=/tmp/cache/matplotlib
export TORCHINDUCTOR_CACHE_DIR=/tmp/cache/inductor TRITON_CACHE_DIR=/tmp/cache/triton
export PYTHONDONTWRITEBYTECODE=1
# a user id without a name has no login: libraries that ask for one read this
export USER="${USER:-proofrun}"
if ! mkdir -p "$HOME" "$MPLCONFIGDIR" 2>/dev/null; then
  echo "entrypoint.sh: /tmp cannot be written: give the container --tmpfs /tmp:rw,exec,mode=1777" >&2
  exit 33
fi
# a base image with the checkout mounted has no /opt/venv: its own interpreter then
if [[ ! -x "${PYTHON:-/opt/venv/bin/python}" ]]; then export PYTHON=python3; fi
export PYTHON="${PYTHON:-/opt/venv/bin/python}"
# shellcheck source=env.sh
. ./env.sh
case "${1:-}" in
  *_Train | *_Infer | -*) exec "$PYTHON" proofrun/launch.py "$@" ;;
esac
# what is no command is taken for a run's name, and told the nearest ones
if ! command -v -- "${1:-}" >/dev/null; then exec "$PYTHON" proofrun/launch.py "$@"; fi
exec "$@"
