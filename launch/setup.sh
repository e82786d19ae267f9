#!/usr/bin/env bash
# Sourced by demo.sh and test.sh: a virtual environment with the pinned versions, made once and put first on PATH.
#   PYTHON=python3.12   the interpreter; default: the first of python3, python3.13, python3.12, python3.11 that is 3.11 to 3.13
#   VENV=FOLDER         the place; default .venv in the project
# torch's build follows the machine: CUDA where an NVIDIA GPU answers, else CPU. A torch of the pinned version that is already
# in the environment stays, so another build can be put there by hand.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root" || exit
venv="${VENV:-$root/.venv}"
stamp="$venv/.guiderail-$({ echo "$root"; cat pyproject.toml setup.py constraints.txt launch/setup.sh; } | cksum | tr ' ' -)"
cpu_index=https://download.pytorch.org/whl/cpu

choose_python() { # 3.14 lacks wheels of pygame, which android-env wants
    local candidate
    for candidate in python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "needs Python 3.11, 3.12 or 3.13 on PATH, or PYTHON=/path/to/python; on Debian: apt-get install python3 python3-venv" >&2
    return 2
}

has_gpu() { [[ "$(nvidia-smi -L 2>/dev/null)" == *GPU* ]]; }

install() { "$venv/bin/pip" install --quiet --disable-pip-version-check -c constraints.txt "$@"; }

install_torch() { # on Linux the default index holds CUDA builds; the CPU build has an index of its own
    if has_gpu; then
        echo "  torch for NVIDIA GPUs (several GB)"
        install torch
        "$venv/bin/python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' ||
            echo "  this torch does not see the GPU: for a build that fits its driver see pytorch.org/get-started/locally," \
                "install it with $venv/bin/pip and start again" >&2
        return
    fi
    echo "  torch for the CPU"
    if [ "$(uname -s)" = Linux ]; then
        install --no-deps --index-url "$cpu_index" --retries 1 --timeout 10 torch 2>/dev/null && return
        echo "  $cpu_index cannot be reached: the default index's torch is taken, with CUDA, several GB" >&2
    fi
    install torch
}

if [ ! -e "$stamp" ]; then
    if [ ! -x "$venv/bin/pip" ]; then
        python="${PYTHON:-$(choose_python)}" || exit 2
        "$python" -m venv "$venv" || { echo "no virtual environments here: apt-get install python3-venv" >&2; exit 2; }
    fi
    echo "installing into $venv (once, some minutes)"
    install_torch
    echo "  everything else"
    install -e ".[train,android,data,served,report,submit,web,console,docs,dev]"
    rm -f "$venv"/.guiderail-*
    touch "$stamp"
fi
export PATH="$venv/bin:$PATH" HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}" TOKENIZERS_PARALLELISM=false
