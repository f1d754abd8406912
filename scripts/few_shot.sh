#!/usr/bin/env bash
# Few-shot learning curve; bash scripts/few_shot.sh --help explains it.

# shellcheck disable=SC2034  # read by common.sh
USAGE='usage: bash scripts/few_shot.sh [DATASET [SEED ...]] [-- KEY VALUE ...]

Train on all classes of DATASET with 1, 2, 4, 8 and 16 images per class, test on all classes, print
the table of accuracy over shots, and draw the curve: OUT/DATASET/few_shot.png. Zero-shot trainers
use no training image: they are run once, and are the dashed lines. Results:
OUT/DATASET/shots_N/TRAINER/CFG/seedSEED'

# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
PROTOCOL=few_shot DEFAULT_TRAINERS="ZeroshotCLIP QuaternionPrompt"

# Set SHOTS_OF to the numbers of shots for TRAINER.
choose_shots() {
    SHOTS_OF=("${SHOTS_LIST[@]}")
    is_trained || SHOTS_OF=(16) # as in scripts/cross_dataset.sh, same folder
}

few_shot() {
    local seed
    choose_shots
    for SHOTS in "${SHOTS_OF[@]}"; do
        capture CFG choose_config
        for seed in "${SEEDS[@]}"; do
            run "$OUT/$(place)/seed$seed" "$DATASET" "$seed" all
        done
    done
}

few_shot_folders() {
    choose_shots
    for SHOTS in "${SHOTS_OF[@]}"; do
        capture CFG choose_config
        printf '%s\n' "$OUT/$(place)"
    done
}

start "$@"
each_trainer few_shot
table few_shot_folders --by shots --curve "$OUT/$DATASET/few_shot.png"
finish
