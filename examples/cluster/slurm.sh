#!/bin/bash
#SBATCH --job-name=tiebreak
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@600
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=tiebreak-%j.log
#
#   sbatch examples/cluster/slurm.sh runs/mine my.yaml
#
# Ten minutes before its time is over the job is told, ends its step, writes a checkpoint, and queues again.
set -u
RUN=$1
CONFIG=$2
HERE=${TIEBREAK_CLUSTER:-examples/cluster} # slurm runs a copy of this file, so that $0 does not say where it lies
MOST_RESTARTS=${MOST_RESTARTS:-50}

HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
PORT=$((20000 + SLURM_JOB_ID % 20000))
PIDS=$PWD/tiebreak-$SLURM_JOB_ID.pid
export RUN CONFIG HERE HEAD PORT PIDS
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=540

# shellcheck disable=SC2016 # the tasks' own shell reads these
srun --kill-on-bad-exit=0 bash -c '
    [ "$SLURM_NODEID" -ne 0 ] || echo "$$" >"$PIDS"
    exec sh "$HERE/exit_code.sh" "$RUN" \
        torchrun --nnodes "$SLURM_NNODES" --nproc-per-node gpu \
        --rdzv-backend c10d --rdzv-endpoint "$HEAD:$PORT" --rdzv-id "$SLURM_JOB_ID" \
        -m tiebreak train "$CONFIG" --set "output.dir=$RUN"
' &
step=$!
# The first machine's launcher alone is told: all processes agree on the step after which they stop.
trap 'kill -TERM "$(cat "$PIDS")" 2>/dev/null' USR1 TERM
code=0
wait "$step" || code=$?
while kill -0 "$step" 2>/dev/null; do # a signal ends `wait` and not the step
    code=0
    wait "$step" || code=$?
done
rm -f "$PIDS"

if [ "$code" -eq 75 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt "$MOST_RESTARTS" ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
