#!/usr/bin/env bash
# The long proofs, with real engines that it installs (Debian packages, root):
#   bash tests/prove.sh                all of `every`, below
#   bash tests/prove.sh slurm          one of them
#   bash tests/prove.sh --all resume   every combination, where else a pairwise sample is taken
#   bash tests/prove.sh gpu            on a machine with an NVIDIA GPU and apex
# Each leaves a dated report in reports/proof/. What cannot run fails; nothing is skipped.
set -euo pipefail
root="$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
if [[ "${1:-}" == --all ]]; then
  export PROOFS_ALL=1
  shift
fi
every=(
  ranks launch faults resume checkpoints prepare cifar cards infer align
  containers nodes slurm browser
)
rooms=("$@")
[[ $# -gt 0 ]] || rooms=("${every[@]}")

packages=()
for room in "${rooms[@]}"; do
  [[ -f "tests/proofs/test_$room.py" ]] || { echo "prove.sh: no proof is called $room" >&2; exit 2; }
  case "$room" in
    containers | nodes) packages+=(docker.io debootstrap iptables) ;;
    slurm) packages+=(slurm-wlm munge) ;;
    browser) packages+=(chromium) ;;
    cards) packages+=(g++ ninja-build) ;;
  esac
done
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [[ ${#missing[@]} -gt 0 ]]; then
  apt-get update
  # the proofs start these services themselves, in folders of their own
  policy=/usr/sbin/policy-rc.d
  if [[ ! -e "$policy" ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
  fi
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
fi
bash tools/setup.sh dev
files=()
for room in "${rooms[@]}"; do files+=("tests/proofs/test_$room.py"); done
.venv/bin/python -m pytest -vv --timeout 1500 --durations 0 "${files[@]}"
