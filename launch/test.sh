#!/usr/bin/env bash
# Sets everything up as launch/local.sh does and runs the tests; arguments go to pytest.
#
#   ./launch/test.sh                    all of them
#   ./launch/test.sh -m "not slow"      the quick ones
#   ./launch/test.sh tests/losses -x    some of them
#
# They run in as many processes as there are cores, four at most; -n 0 runs them in one, as --pdb needs.
set -euo pipefail

# shellcheck source=launch/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
setup test
export JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}" JAX_NUMPY_RANK_PROMOTION="${JAX_NUMPY_RANK_PROMOTION:-raise}"
exec python -m pytest -n auto --maxprocesses=4 --dist loadfile --no-loadscope-reorder "$@"
