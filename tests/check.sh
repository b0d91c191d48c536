#!/usr/bin/env bash
# Every check: lint, format, types, shell, Dockerfiles, then the tests.
set -euo pipefail
root="$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
bash "$root/tools/setup.sh" dev
cd "$root"
bin=.venv/bin
"$bin/ruff" check .
"$bin/ruff" format --check .
"$bin/mypy"
git ls-files -z '*.sh' '*.sbatch' .ci/run | xargs -0 "$bin/shellcheck" -x -P .
git ls-files -z '*Dockerfile' | xargs -0 "$bin/hadolint"
bash tests/run.sh "$@"
