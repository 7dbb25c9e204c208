#!/usr/bin/env bash
# A whole run on a Slurm cluster: `deploy/training/slurm.sh experiments/voc12/drs.toml`. Each stage is a job that waits for the one
# before it. RUN, the folder of the run (`out` in the file), and the photos lie on a disk that all nodes see.
# NODES, GPUS (per node) and SHARDS may be set; PYTHON is the environment of `make dev`, on every node at the same place.
set -euo pipefail
config=$1
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 # docs/pipeline.md, "A process that dies"; sbatch hands the environment on
nodes=${NODES:-2} gpus=${GPUS:-4} shards=${SHARDS:-8} python=${PYTHON:-.venv-dev/bin/python}

# torchrun on every node; the first node is where they meet. A process that dies is started again with all others, from last.ckpt.
together() {
    sbatch --parsable ${1:+--dependency=afterok:$1} --job-name="tag2mask-$2" --requeue \
        --nodes="$nodes" --ntasks-per-node=1 --gpus-per-node="$gpus" --cpus-per-task=$((4 * gpus)) --wrap "
        meeting=\$(scontrol show hostnames \$SLURM_JOB_NODELIST | head -n 1):29500
        srun $python -m torch.distributed.run --nnodes=$nodes --nproc-per-node=$gpus --max-restarts=3 \
            --rdzv-backend=c10d --rdzv-id=\$SLURM_JOB_ID --rdzv-endpoint=\$meeting -m training $2 $config"
}

# Independent shards: one that fails is queued again, and skips the photos that are done.
apart() {
    sbatch --parsable --dependency="afterok:$1" --job-name="tag2mask-$2" --requeue --array="0-$((shards - 1))" \
        --gpus-per-task="$3" --ntasks=1 --cpus-per-task=4 --wrap "$python -m training $2 $config --shard \$SLURM_ARRAY_TASK_ID/$shards"
}

alone() {
    sbatch --parsable ${1:+--dependency=afterok:$1} --job-name="tag2mask-$2" --requeue \
        --ntasks=1 --gpus-per-task=1 --cpus-per-task=4 --wrap "$python -m training $2 $config"
}

before=
grep -q '^\[saliency' "$config" && before=$(alone "" saliency)
before=$(together "$before" fit)
before=$(apart "$before" localize 1)
grep -q '^\[refine' "$config" && before=$(alone "$before" refine)
before=$(apart "$before" pseudo-label 0)
before=$(together "$before" segment)
echo "the last job is $(alone "$before" run)" # export, evaluate, report: what is done already is left as it is
