# shellcheck shell=bash
# Train on one dataset, test on others: shared code of cross_dataset.sh and
# domain_generalization.sh, which select the default targets with TARGET_KIND.

# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
PROTOCOL=transfer DEFAULT_TRAINERS=QuaternionPrompt FIRST=SOURCE
MORE_ENVIRONMENT="
  TARGETS      files of configs/datasets
               ($TARGET_TEXT)"

# Set TARGET_LIST from TARGETS, by default to the source's targets that exist under DATA.
choose_targets() {
    local word target names=$TARGETS
    if [ -z "$names" ]; then
        capture names "$PYTHON" -m dplq.data.targets "$DATASET" --root "$DATA" --kind "$TARGET_KIND"
    fi
    split_variable TARGETS "$names"
    LIST=()
    for word in "${WORDS[@]}"; do
        target=$(find_dataset "$word")
        add_once "$target"
    done
    TARGET_LIST=("${LIST[@]}")
    for target in "${TARGET_LIST[@]}"; do
        if [[ $target == "${DATASET}v2" ]]; then
            echo "warning: ${DATASET}v2 holds the training images of $DATASET" >&2
        fi
    done
}

# Print the folder of the tests on target $1.
target_place() {
    printf '%s\n' "$OUT/evaluation/$DATASET/$TRAINER/${CFG}_${SHOTS}shots/$1"
}

transfer() {
    local seed target model
    capture CFG choose_config
    for seed in "${SEEDS[@]}"; do
        model=$OUT/$(place)/seed$seed
        run "$model" "$DATASET" "$seed" all
        can_name_classes || continue
        for target in "${TARGET_LIST[@]}"; do
            run "$(target_place "$target")/seed$seed" "$target" "$seed" all "$model"
        done
    done
}

transfer_folders() {
    local target
    capture CFG choose_config
    printf '%s\n' "$OUT/$(place)"
    for target in "${TARGET_LIST[@]}"; do
        target_place "$target"
    done
}

start "$@"
choose_targets
each_trainer transfer
table transfer_folders --by target
finish
