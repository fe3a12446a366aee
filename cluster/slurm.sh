#!/usr/bin/env bash
# One job on a Ray cluster inside a SLURM allocation. Submit it from the repository's root, on a file system that every
# node sees (docs/clusters.md):
#     sbatch --nodes 4 cluster/slurm.sh jobs/screen.py configs/screen-phdos.yaml --output /scratch/me/screen-phdos
# With GPUs: sbatch --gpus-per-node 1 …. If nodes may be lost: sbatch --no-kill …, and a training with
# --workers.min-workers 1.
#SBATCH --job-name=mat2spec
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=08:00:00
#SBATCH --signal=B:INT@120
set -euo pipefail

if (($# < 2)); then
    echo "error: give a job and its configuration: sbatch cluster/slurm.sh jobs/screen.py configs/screen-phdos.yaml" >&2
    exit 2
fi
cd "${SLURM_SUBMIT_DIR:?is set by sbatch}"
PATH=$PWD/.venv/bin:$PATH

# Other users' processes reach the head's ports, so every client needs this token. It is passed in srun's environment,
# not on a command line.
RAY_AUTH_TOKEN=$(python -c "import secrets; print(secrets.token_hex(32))")
export PATH RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 MAT2SPEC_HOME=${MAT2SPEC_HOME:-$PWD}

# This script runs on the first node of the allocation, which becomes the head. Several jobs may share a node: each has
# its own port.
read -r head < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
RAY_ADDRESS=$head:$((20000 + SLURM_JOB_ID % 10000))
nodes=$SLURM_JOB_NUM_NODES
others=$((nodes - 1))
started=()
trap 'trap "" INT; kill "${started[@]}" 2>/dev/null; wait' EXIT

ray start --head --block --port="${RAY_ADDRESS#*:}" --num-cpus="$SLURM_CPUS_PER_TASK" --dashboard-host=127.0.0.1 --dashboard-port=0 >&2 &
started+=($!)
if ((others)); then
    srun --nodes="$others" --ntasks="$others" --exclude="$head" --kill-on-bad-exit=0 --export=ALL \
        ray start --block --address="$RAY_ADDRESS" --num-cpus="$SLURM_CPUS_PER_TASK" >&2 &
    started+=($!)
fi

export RAY_ADDRESS # for the job, a driver of this cluster; it counts cores when it starts, so all nodes must have joined
python - "$nodes" <<'PYTHON'
import sys, time, ray
end, wanted, found = time.monotonic() + 300, int(sys.argv[1]), 0
while found < wanted and time.monotonic() < end:
    time.sleep(1)
    try:
        ray.init(log_to_driver=False, logging_level="ERROR")
    except ConnectionError:
        continue
    found = sum(node["Alive"] for node in ray.nodes())
    ray.shutdown()
if found < wanted:
    sys.exit(f"error: {found} of {wanted} nodes joined within 5 minutes; see this job's output for what Ray says, or exclude the node")
PYTHON

set -m # else bash lets a job in the background ignore the interrupt
python "$@" &
job=$!
set +m
# From --signal, two minutes before the time limit: finished work is kept, and the same sbatch resumes.
trap 'kill -INT "$job"' INT
code=0
wait "$job" || code=$?
while kill -0 "$job" 2>/dev/null; do # the trap ended the first wait
    code=0
    wait "$job" || code=$?
done
exit "$code"
