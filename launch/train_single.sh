#!/usr/bin/env bash
# Train on this machine with all its GPUs.
#
#   launch/train_single.sh CONFIG.yaml [key=value ...]
#   launch/train_single.sh CONFIG.yaml training.deepspeed=launch/deepspeed/zero2.json
#
# NPROC             processes; default: one per visible GPU, one on a machine without GPUs
# OMP_NUM_THREADS   threads per process; default 1
#
# Ends with the exit code of the training: see docs/use.md.
set -euo pipefail

usage() { sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }
case "${1:-}" in
  -h | --help) usage; exit 0 ;;
  "") usage >&2; exit 2 ;;
esac

# CUDA_VISIBLE_DEVICES may be set and empty: a machine with GPUs, none of them for us.
if [[ -z "${NPROC:-}" ]]; then
  NPROC=1
  if [[ -n "${CUDA_VISIBLE_DEVICES-all}" ]] && nvidia-smi -L > /dev/null 2>&1; then NPROC=gpu; fi
fi
# Threads of several processes on the same cores wait on each other.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

exec python -m guiderail.launch.torchrun --standalone --nproc_per_node="$NPROC" -m guiderail.launch.cli train "$@"
