#!/usr/bin/env bash
# docker run IMAGE RUN_NAME [flags]: the run script of that name; anything else is run as it is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [[ -f "run_scripts/${1:-}.sh" ]]; then
  script="run_scripts/$1.sh"
  shift
  exec bash "$script" "$@"
fi
exec "$@"
