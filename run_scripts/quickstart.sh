#!/usr/bin/env bash
# From a fresh clone to the three tables: environment, digits, rehearsals, report.
# Two full rehearsals (one a recipe, one process), and 20 steps for each other CPU cell.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
if [[ -z "${PYTHON:-}" ]]; then # an image sets PYTHON to the interpreter baked in
  bash "$root/tools/setup.sh"
  export PYTHON="$root/.venv/bin/python"
fi
# shellcheck source=env.sh
. "$root/env.sh"
cd "$root"

"$PYTHON" tools/dataset.py prepare digits --dst "$DIGITS_DATASET"
full=FP32
if "$PYTHON" -c 'import sys; from proofrun.device import cpu_has_bf16; sys.exit(not cpu_has_bf16())'; then
  full=AMP
else
  echo "quickstart: this processor has no native bf16: the full rehearsals are FP32"
fi
scripts=(run_scripts/*-Digits_*_1CPU_Train.sh run_scripts/*-Digits_*_2CPUs_Train.sh)
number=0
for script in "${scripts[@]}"; do
  number=$((number + 1))
  echo "== $number of ${#scripts[@]}: $(basename "$script" .sh)"
  case "$script" in
    *-Digits_"$full"_*_1CPU_Train.sh) bash "$script" ;;
    *) bash "$script" --throughput 20 ;;
  esac
done
"$PYTHON" tools/report.py "$PROOFRUN_LOGS"
