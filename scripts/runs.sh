# shellcheck shell=bash
# One training or test run, the experiments made of them, and their table: part of common.sh.

FAILED=()     # trainers that failed, when there are several
FAILED_CODE=0 # exit code of what failed first

# Print the folder of the runs that train, below the folder of their kind.
place() {
    # shellcheck disable=SC2153  # set in common.sh
    printf '%s\n' "$DATASET/shots_$SHOTS/$TRAINER/$CFG"
}

# Print what the outcome of a run depends on; $1 dataset, $2 seed, $3 classes, $4 model folder.
settings() {
    local dataset_file=configs/datasets/$1.yaml config_file=configs/trainers/$TRAINER/$CFG.yaml
    printf '%s\n' "dataset $1 (file $(cksum <"$dataset_file"))" \
        "trainer $TRAINER" "config $CFG (file $(cksum <"$config_file"))" \
        "data $DATA" "shots $SHOTS" "classes $3" "seed $2"
    # A model that was trained anew makes the tests of the old one void.
    [ -z "$4" ] || printf '%s\n' "model results.json $(cksum <"$4/results.json")"
    [ ${#OPTS[@]} -eq 0 ] || printf '%s %s\n' "${OPTS[@]}"
}

CURE="Give another OUT, or remove that folder to make its run again."

# Does folder $1 hold a result or a model? A run that failed before the first has logs only.
holds_work() {
    [ -e "$1/results.json" ] || [ -e "$1/prompt_learner" ]
}

# Stop if folder $1, or another seed beside it, holds a run made with settings other than $2.
check_settings() {
    local folder=$1 wanted=$2 other
    if holds_work "$folder"; then
        [ -f "$folder/settings.txt" ] ||
            die "$folder holds files but no settings.txt: how they were made is unknown. $CURE"
        refuse_difference "$folder" "$wanted" '^$'
    fi
    # Seeds are averaged, so all but the seed and its model must be the same.
    for other in "${folder%/*}"/seed*; do
        if [ -f "$other/settings.txt" ] && holds_work "$other"; then
            refuse_difference "$other" "$wanted" '^(seed|model) '
        fi
    done
}

# Stop if the settings in folder $1 are not $2, leaving out the lines that match $3.
refuse_difference() {
    local had wanted
    had=$(grep -vE "$3" "$1/settings.txt" || true)
    wanted=$(grep -vE "$3" <<<"$2")
    [ "$had" != "$wanted" ] || return 0
    echo "settings recorded there (<) and wanted now (>):" >&2
    diff <(echo "$had") <(echo "$wanted") | grep '^[<>]' >&2 || true
    die "$1 was made with other settings. $CURE"
}

# Make folder $1 with settings.txt holding $2; settings.txt is never left half written.
prepare() {
    mkdir -p "$1" && printf '%s\n' "$2" >"$1/settings.tmp" &&
        mv "$1/settings.tmp" "$1/settings.txt"
}

# Train, or with a model folder test: run FOLDER DATASET SEED CLASSES [MODEL_FOLDER]
run() {
    local folder=$1 dataset=$2 seed=$3 classes=$4 model=${5:-} wanted what fault code=0
    local eval_flags=()
    what="train on the $classes classes of $dataset, seed $seed"
    if [ -n "$model" ]; then
        what=test${what#train}
        eval_flags=(--model-dir "$model" --eval-only)
    fi
    what=${what/the all/all}
    wanted=$(settings "$dataset" "$seed" "$classes" "$model")
    check_settings "$folder" "$wanted"
    if [ -s "$folder/results.json" ]; then
        echo "already finished: $folder"
        return 0
    fi
    fault=$(prepare "$folder" "$wanted" 2>&1) ||
        die "OUT ($OUT) cannot be written; give another: $fault"
    echo "== $what: $folder"
    "$PYTHON" train.py --root "$DATA" --seed "$seed" --trainer "$TRAINER" \
        --dataset-config-file "configs/datasets/$dataset.yaml" \
        --config-file "configs/trainers/$TRAINER/$CFG.yaml" \
        --output-dir "$folder" "${eval_flags[@]}" \
        DATASET.NUM_SHOTS "$SHOTS" DATASET.SUBSAMPLE_CLASSES "$classes" "${OPTS[@]}" || code=$?
    if [ "$code" -eq 0 ] && [ ! -s "$folder/results.json" ]; then
        echo "error: train.py ended without writing results.json" >&2
        code=1
    fi
    [ "$code" -eq 0 ] || give_up "$code" "$what" "$folder"
}

give_up() {
    echo "error: failed (exit code $1): $2. Its folder: $3" >&2
    echo "To go on, mend the cause and give the same command again; finished runs are kept." >&2
    exit "$1"
}

# Keep exit code $1 for the end, unless something failed before.
note_failure() {
    [ "$FAILED_CODE" -ne 0 ] || FAILED_CODE=$1
}

# Call a function for every trainer, with TRAINER set. Of several, one that fails is noted, and
# those after it still run; a single one ends the script with its own code.
each_trainer() {
    local code
    if [ ${#TRAINER_LIST[@]} -eq 1 ]; then
        "$@"
        return
    fi
    for TRAINER in "${TRAINER_LIST[@]}"; do
        set +e
        (
            set -e
            trap 'exit 130' INT
            "$@"
        )
        code=$?
        set -e
        [ "$code" -ne 130 ] || exit 130
        if [ "$code" -ne 0 ]; then
            FAILED+=("$TRAINER")
            note_failure "$code"
        fi
    done
}

# Train on the base classes and test on the new ones, for every seed.
base2new() {
    local seed folder
    CFG=$(choose_config)
    folder=$(place)
    for seed in "${SEEDS[@]}"; do
        run "$OUT/base2new/train_base/$folder/seed$seed" "$DATASET" "$seed" base
        if can_name_classes; then
            run "$OUT/base2new/test_new/$folder/seed$seed" "$DATASET" "$seed" new \
                "$OUT/base2new/train_base/$folder/seed$seed"
        fi
    done
}

# Print the folders of base2new's runs.
base2new_folders() {
    CFG=$(choose_config)
    printf '%s\n' "$OUT/base2new/train_base/$(place)" "$OUT/base2new/test_new/$(place)"
}

# Print the table of the runs in the folders that function $1 prints for every trainer; the rest are
# flags of dplq.results.
table() {
    local print_folders=$1 folder folders=()
    shift
    for TRAINER in "${TRAINER_LIST[@]}"; do
        while IFS= read -r folder; do
            [ ! -d "$folder" ] || folders+=("$folder")
        done < <("$print_folders")
    done
    if [ ${#folders[@]} -gt 0 ]; then
        "$PYTHON" -m dplq.results "$@" "${folders[@]}" || note_failure $?
    fi
}

# End with the code of what failed first, and name it.
finish() {
    if [ ${#FAILED[@]} -gt 0 ]; then
        echo "error: failed: ${FAILED[*]}. The messages are above, and in log.txt of each run." >&2
    fi
    [ "$FAILED_CODE" -eq 0 ] || exit "$FAILED_CODE"
}
