#!/usr/bin/env bash
# Train on several machines. Start it on each of them, with the same values except NODE_RANK.
#
#   NNODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 launch/train_multi_node.sh CONFIG.yaml [key=value ...]
#   NNODES=2 NODE_RANK=1 MASTER_ADDR=10.0.0.1 launch/train_multi_node.sh CONFIG.yaml [key=value ...]
#
# NNODES            number of machines
# NODE_RANK         0 on the machine that MASTER_ADDR names, 1, 2, ... on the others
# MASTER_ADDR       address of machine 0, reachable from all
# MASTER_PORT       a free port there; default 29500
# NAME_SECONDS      how long to wait for MASTER_ADDR to become a known name; default 30
# REACH_SECONDS     how long to try to reach machine 0; default 50
# NPROC             processes per machine; default: one per visible GPU, one on a machine without GPUs
# RUN_ID            tells two runs on the same port apart; default guiderail
# OMP_NUM_THREADS   threads per process; default 1
#
# Ends with the exit code of the training: see docs/use.md.
set -euo pipefail

usage() { sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }
case "${1:-}" in
  -h | --help) usage; exit 0 ;;
  "") usage >&2; exit 2 ;;
esac

: "${NNODES:?set NNODES to the number of machines}"
: "${NODE_RANK:?set NODE_RANK to 0 on the first machine, 1 on the second, ...}"
: "${MASTER_ADDR:?set MASTER_ADDR to the address of machine 0}"

# CUDA_VISIBLE_DEVICES may be set and empty: a machine with GPUs, none of them for us.
if [[ -z "${NPROC:-}" ]]; then
  NPROC=1
  if [[ -n "${CUDA_VISIBLE_DEVICES-all}" ]] && nvidia-smi -L > /dev/null 2>&1; then NPROC=gpu; fi
fi
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

# torchrun asks for an unknown name for ever, without a word.
for ((waited = 0; ; waited += 2)); do
  if getent ahosts "$MASTER_ADDR" > /dev/null; then break; fi
  if ((waited >= ${NAME_SECONDS:-30})); then
    echo "the name $MASTER_ADDR is not known on $HOSTNAME; set MASTER_ADDR to an address, or add the name to /etc/hosts" >&2
    exit 2
  fi
  sleep 2
done

# c10d ignores --node_rank and guesses from names who hosts the rendezvous, which fails behind NAT and in containers.
if [[ "$NODE_RANK" == 0 ]]; then is_host=true; else is_host=false; fi

exec python -m guiderail.launch.torchrun \
  --nnodes="$NNODES" --nproc_per_node="$NPROC" \
  --rdzv_backend=c10d --rdzv_endpoint="$MASTER_ADDR:${MASTER_PORT:-29500}" \
  --rdzv_id="${RUN_ID:-guiderail}" --rdzv_conf="is_host=$is_host,read_timeout=${REACH_SECONDS:-50}" \
  -m guiderail.launch.cli train "$@"
