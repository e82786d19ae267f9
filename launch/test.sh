#!/usr/bin/env bash
# Format, lint, strict types, tests. The one door to quality; CI calls it too. Arguments go to pytest:
#   ./launch/test.sh -m slow        the long proofs (ZeRO, kill and resume)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
export OMP_NUM_THREADS=1
ruff format --check .
ruff check .
mypy
if [ "$#" -gt 0 ]; then pytest "$@"; else pytest -n 2; fi
