#!/usr/bin/env bash
# Installs cbalign with everything the tests need and runs them; arguments are passed to pytest.
#
#   ./launch/test.sh                    all tests but those that take many minutes
#   ./launch/test.sh -m long            those
#   ./launch/test.sh -m "not slow"      the quick ones
#   ./launch/test.sh tests/losses -x    some of them
#
# Tests run in one process per core, at most four; -n 0 runs them in a single process, as --pdb requires.
set -euo pipefail

# shellcheck source=launch/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
setup test
export JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}" JAX_NUMPY_RANK_PROMOTION="${JAX_NUMPY_RANK_PROMOTION:-raise}"
exec python -m pytest -n auto --maxprocesses=4 --dist loadfile --no-loadscope-reorder "$@"
