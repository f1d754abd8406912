# shellcheck shell=bash
# Training and test runs, the experiments that consist of them, and their table: part of common.sh.

FAILED=()     # trainers that failed, when there are several
FAILED_CODE=0 # exit code of the first failure

# Print the path of the training runs, relative to the folder of their kind.
place() {
    # shellcheck disable=SC2153  # set in common.sh
    printf '%s\n' "$DATASET/shots_$SHOTS/$TRAINER/$CFG"
}

# Print the settings that determine a result; $1 dataset, $2 seed, $3 classes, $4 model folder.
settings() {
    local dataset_file=configs/datasets/$1.yaml config_file=configs/trainers/$TRAINER/$CFG.yaml
    printf '%s\n' "dataset $1 (file $(cksum <"$dataset_file"))" \
        "trainer $TRAINER" "config $CFG (file $(cksum <"$config_file"))" \
        "data $DATA" "shots $SHOTS" "classes $3" "seed $2"
    # Retraining a model invalidates the tests of the old one.
    [ -z "$4" ] || printf '%s\n' "model results.json $(cksum <"$4/results.json")"
    [ ${#OPTS[@]} -eq 0 ] || printf '%s %s\n' "${OPTS[@]}"
}

CURE="Give another OUT, or remove that folder to make its run again."

# Succeed if folder $1 contains a result or a model; a run that failed early has logs only.
holds_work() {
    [ -e "$1/results.json" ] || [ -e "$1/prompt_learner" ]
}

# Stop if folder $1, or another seed beside it, contains a run with settings other than $2.
check_settings() {
    local folder=$1 wanted=$2 other
    if holds_work "$folder"; then
        [ -f "$folder/settings.txt" ] ||
            die "$folder holds files but no settings.txt: how they were made is unknown. $CURE"
        refuse_difference "$folder" "$wanted" '^$'
    fi
    # Seeds are averaged, so everything but the seed and its model must be equal.
    for other in "${folder%/*}"/seed*; do
        if [ -f "$other/settings.txt" ] && holds_work "$other"; then
            refuse_difference "$other" "$wanted" '^(seed|model) '
        fi
    done
}

# Stop if the settings in folder $1 differ from $2, ignoring lines that match $3.
refuse_difference() {
    local had wanted
    had=$(grep -vE "$3" "$1/settings.txt" || true)
    wanted=$(grep -vE "$3" <<<"$2")
    [ "$had" != "$wanted" ] || return 0
    echo "settings recorded there (<) and wanted now (>):" >&2
    diff <(echo "$had") <(echo "$wanted") | grep '^[<>]' >&2 || true
    die "$1 was made with other settings. $CURE"
}

# Create folder $1 and check that it can be written.
make_folder() {
    mkdir -p "$1" || return
    [ -w "$1" ] || { echo "$1: no permission to write" && return 1; }
}

# Succeed if settings.txt in folder $1, if any, is that of a run which failed early.
is_replaceable() {
    [ ! -e "$1/run.json" ] && ! holds_work "$1"
}

# Write settings.txt with $2 in folder $1, atomically, for a child that did not. train.py writes it
# itself, with run.json, while it holds the folder's lock: neither may be replaced here.
record_settings() {
    local temporary=$1/.settings.$$-0.part.txt # a name that train.py clears after a kill
    [ -d "$1" ] && [ ! -e "$1/run.json" ] || return 0
    printf '%s\n' "$2" >"$temporary" && mv "$temporary" "$1/settings.txt"
}

# Train, or with a model folder test: run FOLDER DATASET SEED CLASSES [MODEL_FOLDER]
run() {
    local folder=$1 dataset=$2 seed=$3 classes=$4 model=${5:-} wanted what fault code=0 record=''
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
    fault=$(make_folder "$folder" 2>&1) ||
        die "OUT ($OUT) cannot be written; give another: $fault"
    ! is_replaceable "$folder" || record=yes
    echo "== $what: $folder"
    DPLQ_SETTINGS=$wanted supervise "$PYTHON" train.py --root "$DATA" --seed "$seed" --trainer "$TRAINER" \
        --dataset-config-file "configs/datasets/$dataset.yaml" \
        --config-file "configs/trainers/$TRAINER/$CFG.yaml" \
        --output-dir "$folder" "${eval_flags[@]}" \
        DATASET.NUM_SHOTS "$SHOTS" DATASET.SUBSAMPLE_CLASSES "$classes" "${OPTS[@]}" || code=$?
    # After code 2 train.py wrote nothing, and the folder may be that of another process by now.
    if [ "$code" -ne 2 ] && { [ -n "$record" ] || [ ! -e "$folder/settings.txt" ]; }; then
        fault=$(record_settings "$folder" "$wanted" 2>&1) ||
            die "OUT ($OUT) cannot be written; give another: $fault"
    fi
    end_if_stopped
    if [ "$code" -eq 0 ] && [ ! -s "$folder/results.json" ]; then
        echo "error: train.py ended without writing results.json" >&2
        code=1
    fi
    [ "$code" -eq 0 ] || give_up "$code" "$what" "$folder"
}

give_up() {
    echo "error: failed (exit code $1): $2. Its folder: $3" >&2
    echo "To go on, fix the cause and give the same command again; finished runs are kept." >&2
    exit "$1"
}

# Keep exit code $1 for the end, unless something failed before.
note_failure() {
    [ "$FAILED_CODE" -ne 0 ] || FAILED_CODE=$1
}

# Call a function with errexit, as a child of the script.
as_child() {
    become_child
    set -e
    "$@"
}

# Call a function for every trainer, with TRAINER set. With several, a failure is recorded and the
# following trainers still run; with one, the script ends with its code.
each_trainer() {
    local code
    if [ ${#TRAINER_LIST[@]} -eq 1 ]; then
        "$@"
        return
    fi
    for TRAINER in "${TRAINER_LIST[@]}"; do
        set +e # in a condition, errexit would have no effect on the child
        supervise as_child "$@"
        code=$?
        set -e
        end_if_stopped
        if [ "$code" -ne 0 ]; then
            FAILED+=("$TRAINER")
            note_failure "$code"
        fi
    done
}

# Train on the base classes and test on the new ones, for every seed; where GENERALISED is yes, on
# all of them, too.
base2new() {
    local seed place model
    capture CFG choose_config
    place=$(place)
    for seed in "${SEEDS[@]}"; do
        model=$OUT/base2new/train_base/$place/seed$seed
        run "$model" "$DATASET" "$seed" base
        can_name_classes || continue
        run "$OUT/base2new/test_new/$place/seed$seed" "$DATASET" "$seed" new "$model"
        [ "$GENERALISED" != yes ] ||
            run "$OUT/base2new/test_all/$place/seed$seed" "$DATASET" "$seed" all "$model"
    done
}

# Print the folders of base2new's runs.
base2new_folders() {
    local part
    capture CFG choose_config
    for part in train_base test_new test_all; do
        printf '%s\n' "$OUT/base2new/$part/$(place)"
    done
}

# Print the table of the runs in the folders that function $1 prints for every trainer; further
# arguments are flags of dplq.results.
table() {
    local print_folders=$1 folder folders=()
    shift
    for TRAINER in "${TRAINER_LIST[@]}"; do
        while IFS= read -r folder; do
            [ ! -d "$folder" ] || folders+=("$folder")
        done < <("$print_folders")
    done
    if [ ${#folders[@]} -gt 0 ]; then
        supervise "$PYTHON" -m dplq.results "$@" "${folders[@]}" || note_failure $?
        end_if_stopped
    fi
}

# Exit with the code of the first failure, and name the failed trainers.
finish() {
    if [ ${#FAILED[@]} -gt 0 ]; then
        echo "error: failed: ${FAILED[*]}. The messages are above, and in log.txt of each run." >&2
    fi
    [ "$FAILED_CODE" -eq 0 ] || exit "$FAILED_CODE"
}
