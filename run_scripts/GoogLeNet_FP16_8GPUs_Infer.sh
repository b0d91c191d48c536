#!/usr/bin/env bash
# The name of this file is the run. Extra flags are passed on, recorded and shown: see README.md.
script="$(readlink -f "${BASH_SOURCE[0]}")"
here="$(dirname "$script")"
# shellcheck source=env.sh
. "$here/../env.sh"
exec "${PYTHON:-python3}" "$here/../proofrun/launch.py" "$(basename "$script" .sh)" "$@"
