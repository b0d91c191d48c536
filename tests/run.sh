#!/usr/bin/env bash
# The tests, with what they need: bash tests/run.sh [pytest arguments]
set -euo pipefail
root="$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
bash "$root/tools/setup.sh" dev
cd "$root"
exec .venv/bin/python -m pytest "$@"
