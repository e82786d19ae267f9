#!/usr/bin/env bash
# Format, lint, strict types, tests. The one door to quality; CI calls it too. Arguments go to pytest:
#   ./launch/test.sh -m slow        the long proofs (ZeRO, kill and resume)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
export OMP_NUM_THREADS=1
ruff format --check .
ruff check .
files=$(find agent envs patch rl launch guiderail/__init__.py -name '*.py' | wc -l)
checked=$(mypy) || { echo "$checked"; exit 1; }
echo "$checked"
# mypy reaches the folders through the links in guiderail/; where these are not links it would check one file and be content
[[ "$checked" == *" $((files)) source files" ]] || { echo "mypy did not check all $((files)) files" >&2; exit 1; }
if [ "$#" -gt 0 ]; then pytest "$@"; else pytest -n 2; fi
