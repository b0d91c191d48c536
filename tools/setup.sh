#!/usr/bin/env bash
# Makes .venv, or leaves it as it is when it already has what requirements/ say.
#   bash tools/setup.sh        what a run and its report need
#   bash tools/setup.sh dev    also what the tests and checks need
# PROOFRUN_DALI=cuda120 takes the DALI build for drivers older than CUDA 13.
set -euo pipefail
root="$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="$root/.venv"
req="$root/requirements"
dali="$req/dali-${PROOFRUN_DALI:-cuda130}.txt"
say() { echo "setup: $*" >&2; }
die() { say "$*"; exit 14; }

[[ -f "$dali" ]] || die "PROOFRUN_DALI=${PROOFRUN_DALI:-} is unknown: cuda130 or cuda120"
lists=(-r "$req/run.txt" -r "$dali")
[[ "${1:-}" != dev ]] || lists+=(-r "$req/dev.txt" -r "$req/export.txt")

# The stamp names the lists that are installed; dev includes run.
stamp() { cat "$req/constraints.txt" "$req/run.txt" "$dali" "$@" | sha256sum | cut -d' ' -f1; }
run_stamp="$(stamp)"
dev_stamp="$(stamp "$req/dev.txt" "$req/export.txt")"
have="$(cat "$venv/.proofrun" 2>/dev/null || true)"
want="$run_stamp"
[[ "${1:-}" != dev ]] || want="$dev_stamp"
if [[ "$have" == "$want" || "$have" == "$dev_stamp" ]]; then exit 0; fi

python=""
for candidate in python3 python3.13 python3.12 python3.11; do
  if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python="$candidate"
    break
  fi
done
[[ -n "$python" ]] || die "Python 3.11 or newer is needed: apt-get install python3 python3-venv"
"$python" -c 'import ensurepip' 2>/dev/null ||
  die "$python has no venv module: apt-get install python3-venv"

say "installing into $venv (minutes, once)"
rm -f "$venv/.proofrun"
[[ -x "$venv/bin/python" ]] || "$python" -m venv "$venv"
pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check)
torch="$(grep '^torch==' "$req/constraints.txt")"
# torch first: its pin decides between the CPU build and a CUDA build, and others depend on it
"${pip[@]}" "$torch"
"${pip[@]}" --constraint "$req/constraints.txt" "${lists[@]}"
echo "$want" >"$venv/.proofrun"
say "done"
