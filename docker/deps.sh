#!/usr/bin/env bash
# Installs what requirements/ name into /opt/venv: bash docker/deps.sh cpu|cuda|npu|mlu
# cpu brings everything. A vendor's base brings torch, torchvision, DALI and apex as it built them:
# what it has is kept, only what is missing is installed, and the end checks that.
set -euo pipefail
backend="${1:?cpu, cuda, npu or mlu}"
here="$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
req="$here/../requirements"
venv=/opt/venv
die() { echo "docker/deps.sh: $*" >&2; exit 1; }
# has it, without importing it: a vendor's torch may need its driver
has() {
  python3 - "$1" <<'PY'
import importlib.util
import sys

try:
    found = importlib.util.find_spec(sys.argv[1])
except ModuleNotFoundError:  # not even the package above it
    found = None
sys.exit(found is None)
PY
}

command -v python3 >/dev/null || die "the base image has no python3: set BASE_IMAGE to one that has"
case "$backend" in
  cpu) ;;
  cuda) vendor=torch ;;
  npu) vendor=torch_npu ;;
  mlu) vendor=torch_mlu ;;
  *) die "BACKEND=$backend is unknown: cpu, cuda, npu or mlu" ;;
esac

if [[ "$backend" == cpu ]]; then
  python3 -m venv "$venv"
  pip=("$venv/bin/python" -m pip install --no-cache-dir --disable-pip-version-check)
  index=()
  [[ -z "${TORCH_INDEX:-}" ]] || index=(--extra-index-url "$TORCH_INDEX")
  "${pip[@]}" "${index[@]}" "$(grep '^torch==' "$req/constraints.txt")"
  "${pip[@]}" "${index[@]}" -c "$req/constraints.txt" -r "$req/run.txt" -r "$req/dali-cuda130.txt"
  exit 0
fi

has "$vendor" || die "BACKEND=$backend, but the base image has no $vendor: set BASE_IMAGE to the vendor's PyTorch image"
has torch || die "BACKEND=$backend, but the base image has no torch"
# no ensurepip in some bases: the base's own pip fills the venv
python3 -m venv --system-site-packages --without-pip "$venv"
lists=(-r "$req/run.txt")
has nvidia.dali || lists+=(-r "$req/dali-cuda130.txt")
constraints="$(mktemp)"
"$venv/bin/python" "$here/constraints.py" "$req/constraints.txt" >"$constraints"
# NVIDIA's images set PIP_CONSTRAINT for all of pip; the file made here says the same and more
PIP_CONSTRAINT="$constraints" python3 -m pip --python "$venv/bin/python" install \
  --no-cache-dir --disable-pip-version-check "${lists[@]}"
rm "$constraints"
for name in torch torchvision apex "$vendor"; do
  if compgen -G "$venv/lib*/python3*/site-packages/$name" >/dev/null && has "$name"; then
    die "$name of the base image would be replaced: $(cd "$venv" && ls -d lib*/python3*/site-packages/"$name"*)"
  fi
done
