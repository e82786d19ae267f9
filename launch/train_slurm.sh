#!/usr/bin/env bash
# Train under SLURM, one torchrun per node. Options before the script's name replace those below.
#
#   sbatch launch/train_slurm.sh CONFIG.yaml [key=value ...]
#   sbatch --nodes=4 --gpus-per-node=8 --partition=NAME launch/train_slurm.sh CONFIG.yaml [key=value ...]
#
# NPROC             processes per node; default: the GPUs that SLURM gave to a node, else 1
# MASTER_PORT       a free port on the first node; default: made from the job's number
# OMP_NUM_THREADS   threads per process; default 1
#
#SBATCH --job-name=guiderail
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --output=%x-%j.log
set -euo pipefail

usage() { sed -n '2,/^set /{/^#SBATCH/d;/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }
case "${1:-}" in
  -h | --help) usage; exit 0 ;;
  "") usage >&2; exit 2 ;;
esac

: "${SLURM_JOB_NODELIST:?runs inside a SLURM job: start it with sbatch}"
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
MASTER_ADDR="${nodes[0]:?scontrol lists no node for $SLURM_JOB_NODELIST}"
MASTER_PORT="${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 20000))}" # two jobs may share a node
NPROC="${NPROC:-${SLURM_GPUS_ON_NODE:-1}}"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
# srun does not take --cpus-per-task over from sbatch: without this every node trains on one core.
if [[ -n "${SLURM_CPUS_PER_TASK:-}" ]]; then export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"; fi

exec srun --nodes="${#nodes[@]}" --ntasks-per-node=1 --kill-on-bad-exit=1 torchrun \
  --nnodes="${#nodes[@]}" --nproc_per_node="$NPROC" \
  --rdzv_backend=c10d --rdzv_endpoint="$MASTER_ADDR:$MASTER_PORT" --rdzv_id="$SLURM_JOB_ID" \
  -m launch.cli train "$@"
