#!/usr/bin/env bash
# From a fresh clone to the three tables: environment, digits, rehearsals, report.
# Two full rehearsals (one a recipe, one process), and 20 steps for each other CPU cell.
set -euo pipefail
root="$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
if [[ -n "${PYTHON:-}" ]] && ! command -v "$PYTHON" >/dev/null; then
  echo "quickstart: PYTHON=$PYTHON does not exist; unset PYTHON to use .venv" >&2
  exit 14
fi
if [[ -z "${PYTHON:-}" ]]; then # an image sets PYTHON to the interpreter baked in
  bash "$root/tools/setup.sh"
  export PYTHON="$root/.venv/bin/python"
fi
# shellcheck source=env.sh
. "$root/env.sh"
cd "$root"

"$PYTHON" tools/dataset.py prepare digits --dst "$DIGITS_DATASET"
full=FP32
if "$PYTHON" -c 'import sys; from proofrun.host import cpu_has_bf16; sys.exit(not cpu_has_bf16())'; then
  full=AMP
else
  echo "quickstart: this processor has no native bf16: the full rehearsals are FP32"
fi

# A stop of this script is one of the run that it waits for, which saves and ends with 75.
child=""
run() {
  local code=0
  "$@" &
  child=$!
  wait "$child" || code=$?
  child=""
  return "$code"
}
stop() {
  if [[ -n "$child" ]]; then
    kill -TERM "$child" 2>/dev/null || true
    wait "$child" || true
  fi
  echo "quickstart: stopped; called again it goes on with the run that was interrupted" >&2
  exit 75
}
trap stop INT TERM HUP

scripts=(run_scripts/*-Digits_*_1CPU_Train.sh run_scripts/*-Digits_*_2CPUs_Train.sh)
number=0
for script in "${scripts[@]}"; do
  number=$((number + 1))
  echo "== $number of ${#scripts[@]}: $(basename "$script" .sh)"
  case "$script" in
    *-Digits_"$full"_*_1CPU_Train.sh) run bash "$script" ;;
    *) run bash "$script" --throughput 20 ;;
  esac
done
"$PYTHON" tools/report.py "$PROOFRUN_LOGS"
