#!/bin/bash
# The reference-sized run and a published row on a machine with a GPU and without network access, each ending in a table:
#
#     bash benchmarks/gpu.sh [cifar100-jpeg.tar.xz [cifar10-jpeg.tar.xz]]
#
# 1. The reference: CIFAR-100, ResNet18, 100 epochs, 20 shadows.
# 2. lira-pytorch's ResNet18 row on CIFAR-10 (benchmarks/RESULTS.md, "Published rows"), where CIFAR-10 is there.
#
# It needs this clone, the images (data/cifar100-jpeg and data/cifar10-jpeg, or their archives, which are unpacked there)
# and a Python with the packages of requirements.txt except opacus. Stopped by a time limit? Give the same command again:
# it resumes from the files in FOLDER. Several processes on one card: WORKERS=3. Through torch.compile: FLAGS=--compile.
# A quick trial:
#
#     DATASET=digits ROW_DATASET=digits NETWORK=ConvNet EPOCHS=2 SHADOWS=4 ROW_SHADOWS=4 ROW_QUERIES=1 BATCHES=1 \
#         ROUNDS=1 COMPILED=0 DEVICE=cpu bash benchmarks/gpu.sh
set -euo pipefail
FOLDER=$(realpath -m "${FOLDER:-$(dirname "$0")/../result/gpu}")
ARCHIVES=()
for archive in "$@"; do ARCHIVES+=("$(realpath "$archive")"); done
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3} DEVICE=${DEVICE:-cuda} WORKERS=${WORKERS:-1}
DATASET=${DATASET:-data/cifar100-jpeg} ROW_DATASET=${ROW_DATASET:-data/cifar10-jpeg} NETWORK=${NETWORK:-ResNet18}

unpack() { # ARCHIVE FOLDER, unless it is there
    [ -z "$1" ] || [ -d "$2" ] || { mkdir -p "$2.part" && tar -xf "$1" -C "$2.part" && mv "$2.part" "$2"; }
}
unpack "${ARCHIVES[0]:-}" "$DATASET"
unpack "${ARCHIVES[1]:-}" "$ROW_DATASET"
mkdir -p "$FOLDER"
rates() { # FILE [flag]: measured once
    [ -f "$FOLDER/$1" ] || $PYTHON benchmarks/train_throughput.py --dataset "$DATASET" --networks "$NETWORK" \
        --device "$DEVICE" --rounds "${ROUNDS:-3}" ${BATCHES:+--batches "$BATCHES"} --csv "$FOLDER/$1" "${@:2}"
}
rates rates.csv
if [ "${COMPILED:-1}" = 1 ]; then
    rates compiled.csv --compile || echo "torch.compile does not work here"
fi
LAUNCH=$PYTHON
[ "$WORKERS" = 1 ] || LAUNCH="$PYTHON -m torch.distributed.run --standalone --nproc-per-node $WORKERS --max-restarts 3"
run() { # flags: train what is missing, attack, print the table of all runs
    local all=("$@" --network "$NETWORK" --disable-dp --epochs "${EPOCHS:-100}" --device "$DEVICE" --quiet
        --model-dir "$FOLDER/model" --result-dir "$FOLDER/result")
    # shellcheck disable=SC2086 # word splitting intended
    $LAUNCH train_model.py "${all[@]}" ${FLAGS:-}
    # shellcheck disable=SC2086
    $PYTHON attack_lira.py "${all[@]}" ${FLAGS:-}
    $PYTHON benchmarks/gpu_table.py "$FOLDER" --workers "$WORKERS"
}
run --dataset "$DATASET" --n-shadows "${SHADOWS:-20}"
case $ROW_DATASET in */*) [ -e "$ROW_DATASET" ] || { echo "no $ROW_DATASET: the published row is left out"; exit; } ;; esac
WHOLE=$FOLDER/cifar10-whole.npz
[ -f "$WHOLE" ] || $PYTHON benchmarks/whole_training_set.py "$ROW_DATASET" "$WHOLE"
run --dataset "$WHOLE" --n-train 0 --n-shadows "${ROW_SHADOWS:-14}" --train-batch-size 128 --lr 0.1 \
    --weight-decay 5e-4 --lr-schedule cosine --n-queries "${ROW_QUERIES:-2}" --convention official
