#!/usr/bin/env bash
# The name of this file is the run. Extra flags are passed on, recorded and shown: see README.md.
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=env.sh
. "$here/../env.sh"
exec "${PYTHON:-python3}" "$here/../proofrun/launch.py" "$(basename "${BASH_SOURCE[0]}" .sh)" "$@"
