#!/usr/bin/env bash
# Train under SLURM, one launcher per node. Options before the script's name replace those below.
#
#   sbatch launch/train_slurm.sh CONFIG.yaml [key=value ...]
#   sbatch --nodes=4 --gpus-per-node=8 --partition=NAME launch/train_slurm.sh CONFIG.yaml [key=value ...]
#
# NPROC             processes per node; default: the GPUs that SLURM gave to a node, else 1
# MASTER_PORT       a free port on the first node; default: made from the job's number
# NAME_SECONDS      how long to wait for the first node's name to be known; default 30
# REACH_SECONDS     how long to try to reach the first node; default 50
# OMP_NUM_THREADS   threads per process; default 1
#
# Ends with the exit code of the training: see docs/use.md.
# A job that SLURM puts back into the queue goes on from its last checkpoint.
#
#SBATCH --job-name=guiderail
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
set -euo pipefail

usage() { sed -n '2,/^set /{/^#SBATCH/d;/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }
case "${1:-}" in
  -h | --help) usage; exit 0 ;;
  "") usage >&2; exit 2 ;;
esac

: "${SLURM_JOB_NODELIST:?runs inside a SLURM job: start it with sbatch}"
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
MASTER_ADDR="${nodes[0]:?scontrol lists no node for $SLURM_JOB_NODELIST}"
# torchrun asks for an unknown name for ever, without a word.
for ((waited = 0; ; waited += 2)); do
  if getent ahosts "$MASTER_ADDR" > /dev/null; then break; fi
  if ((waited >= ${NAME_SECONDS:-30})); then
    echo "the name $MASTER_ADDR is not known on $HOSTNAME; add the nodes of $SLURM_JOB_NODELIST to /etc/hosts or DNS" >&2
    exit 2
  fi
  sleep 2
done
MASTER_PORT="${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 20000))}" # two jobs may share a node
NPROC="${NPROC:-${SLURM_GPUS_ON_NODE:-1}}"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
# srun does not take --cpus-per-task over from sbatch: without this every node trains on one core.
if [[ -n "${SLURM_CPUS_PER_TASK:-}" ]]; then export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"; fi
if ((${SLURM_RESTART_COUNT:-0} > 0)); then set -- "$@" --resume; fi

exec srun --nodes="${#nodes[@]}" --ntasks-per-node=1 --kill-on-bad-exit=1 python -m guiderail.launch.torchrun \
  --nnodes="${#nodes[@]}" --nproc_per_node="$NPROC" \
  --rdzv_backend=c10d --rdzv_endpoint="$MASTER_ADDR:$MASTER_PORT" --rdzv_id="$SLURM_JOB_ID" \
  --rdzv_conf="read_timeout=${REACH_SECONDS:-50}" \
  -m guiderail.launch.cli train "$@"
