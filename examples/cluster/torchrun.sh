#!/bin/sh
# Several machines by hand: the same command on each of them.
#
#   RUN=runs/mine CONFIG=my.yaml HEAD=10.0.0.1 NODES=2 sh examples/cluster/torchrun.sh
#
# One machine alone needs no more than: torchrun --nproc-per-node 8 -m tiebreak train my.yaml
set -eu
: "${RUN:?the folder of output.dir, on a disk that all machines share}" "${CONFIG:?the YAML file}"
: "${HEAD:?the address of one of them}" "${NODES:=1}" "${GPUS:=gpu}" "${PORT:=29500}"

# Time to end a step and to write a checkpoint after a signal, before torchrun kills.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=600

exec sh "$(dirname "$0")/exit_code.sh" "$RUN" \
    torchrun --nnodes "$NODES" --nproc-per-node "$GPUS" \
    --rdzv-backend c10d --rdzv-endpoint "$HEAD:$PORT" --rdzv-id "$(basename "$RUN")" \
    -m tiebreak train "$CONFIG" --set "output.dir=$RUN"
