#!/usr/bin/env bash
# Sourced by demo.sh and test.sh: a virtual environment beside the project with the pinned versions, made once.
# PYTHON=python3.12 chooses the interpreter, VENV=dir the place.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
venv="${VENV:-$root/.venv}"
stamp="$venv/.guiderail-$(cat pyproject.toml constraints.txt | sha256sum | cut -c1-16)"

if [ ! -e "$stamp" ]; then
    python="${PYTHON:-}"
    for candidate in python3 python3.13 python3.12 python3.11; do
        [ -n "$python" ] && break
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && python="$candidate"
    done
    [ -n "$python" ] || { echo "guiderail needs Python 3.11 or later: apt-get install python3 python3-venv" >&2; exit 2; }
    "$python" -m venv "$venv" || { echo "no virtual environments here: apt-get install python3-venv" >&2; exit 2; }
    echo "installing into $venv (once)"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -c constraints.txt "torch==2.13.0"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -c constraints.txt -e ".[train,android,data,served,report,submit,web,dev]"
    touch "$stamp"
fi
export PATH="$venv/bin:$PATH" HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}" TOKENIZERS_PARALLELISM=false
