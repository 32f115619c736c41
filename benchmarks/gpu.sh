#!/bin/bash
# The reference-sized run on a machine with a GPU and without network access, by one command that ends with a table:
#
#     bash benchmarks/gpu.sh [cifar10-jpeg.tar.xz]
#
# It needs this clone, the images (data/cifar10-jpeg, or their archive, which is unpacked there) and a Python with the
# packages of requirements.txt except opacus. Stopped by a time limit? Give the same command again: it resumes from the
# files in FOLDER. Several processes on one card: WORKERS=3. Through torch.compile: FLAGS=--compile. A quick trial:
#
#     DATASET=digits NETWORK=ConvNet EPOCHS=2 SHADOWS=4 BATCHES=1 ROUNDS=1 COMPILED=0 DEVICE=cpu bash benchmarks/gpu.sh
set -euo pipefail
FOLDER=$(realpath -m "${FOLDER:-$(dirname "$0")/../result/gpu}")
ARCHIVE=${1:+$(realpath "$1")}
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3} DEVICE=${DEVICE:-cuda} WORKERS=${WORKERS:-1}
DATASET=${DATASET:-data/cifar10-jpeg} NETWORK=${NETWORK:-ResNet18}
RUN="--dataset $DATASET --network $NETWORK --disable-dp --epochs ${EPOCHS:-100} --n-shadows ${SHADOWS:-20}
    --device $DEVICE --quiet --model-dir $FOLDER/model --result-dir $FOLDER/result ${FLAGS:-}"

if [ -n "$ARCHIVE" ] && [ ! -d "$DATASET" ]; then
    mkdir -p "$DATASET.part" && tar -xf "$ARCHIVE" -C "$DATASET.part" && mv "$DATASET.part" "$DATASET"
fi
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
# shellcheck disable=SC2086 # word splitting intended
$LAUNCH train_model.py $RUN
# shellcheck disable=SC2086
$PYTHON attack_lira.py $RUN
$PYTHON benchmarks/gpu_table.py "$FOLDER" --workers "$WORKERS"
