# shellcheck shell=bash
# For interactive work and the container: `source recipes/googlenet/env.sh`, then run_scripts/$PROOFRUN_MODEL*.sh
# shellcheck source=env.sh
. "$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/env.sh"
export PROOFRUN_MODEL="${PROOFRUN_MODEL:-GoogLeNet}"
