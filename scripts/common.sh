# shellcheck shell=bash
# The shared body of the experiment scripts: sourced by them, not run.
#
# A script sets USAGE (its own help text), calls `start "$@"`, then `run` once per training or test
# and `table` at the end. `start` leaves the shell in the project root with DATASET, SEEDS, OPTS,
# TRAINER, CFG, SHOTS, DATA, OUT and PYTHON set and checked. Bash 3.2 (macOS) is enough.

set -eo pipefail

CALLER=$PWD
ROOT=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)

DEMO=demo_aerial # what runs when no dataset is given

# Settings that the scripts give themselves: a second value would contradict the folder's name.
RESERVED=(DATASET.NUM_SHOTS DATASET.SUBSAMPLE_CLASSES DATASET.NAME DATASET.ROOT SEED OUTPUT_DIR
    TRAINER.NAME)

help_text() {
    cat <<END
$USAGE

  DATASET      a file of configs/datasets, without .yaml; capitals do not matter. Without any
               argument: the built-in demo, demo_aerial, which needs no data and no downloads
  SEED         whole numbers; default: 1 2 3
  KEY VALUE    settings that override the config files, e.g. -- OPTIM.MAX_EPOCH 5. An existing
               relative path is found from the current directory: one with a slash (dir/x.pt,
               local-dir:dir/x, NAME:dir/x.pt), or any file for a key ending in WEIGHTS.

Environment (default):
  DATA         folder of the datasets (data)
  OUT          folder for the results (output)
  TRAINER      a folder of configs/trainers (QuaternionPrompt)
  CFG          a file of configs/trainers/TRAINER, without .yaml (vit_b16_c2_ep15_batch4_2ctx;
               demo for the built-in datasets demo_aerial and demo_tissue)
  SHOTS        training images per class; -1 takes all (16)
  PYTHON       the Python to run (python)
DATA, OUT and PYTHON may be relative to the current directory, which may be any.

A run is finished when its folder holds results.json; it is then not repeated. To go on after a
failure or Ctrl-C, give the same command again. settings.txt in the folder of a run records how it
was made: a run with other settings, there or for another seed beside it, is refused, so that no two
are mixed; give another OUT, or remove the folder. A folder with neither results.json nor
prompt_learner/ (a run that failed early) refuses nothing.
Exit code: 0 done, 2 wrong arguments or settings, else the code of the run that failed.
END
}

die() {
    echo "error: $*" >&2
    exit 2
}

# Print path $1 as an absolute one, seen from where the script was called.
absolute() {
    case $1 in
        /*) printf '%s\n' "$1" ;;
        *) printf '%s\n' "$CALLER/$1" ;;
    esac
}

# Print the name in folder $2 (ending in $3) that is $1 but for capitals; $4 says what it is.
find_name() {
    local wanted=$1 folder=$2 suffix=$3 what=$4 path name match='' choices=''
    shopt -s nocasematch
    for path in "$folder"/*"$suffix"; do
        [[ -e $path ]] || continue
        path=${path%/}
        name=${path##*/}
        name=${name%"$suffix"}
        choices+=" $name"
        [[ $name == "$wanted" ]] || continue
        # The exact name wins where two differ in capitals only.
        if [ -z "$match" ] || [ "$name" = "$wanted" ]; then match=$name; fi
    done
    [ -n "$match" ] || die "unknown $what '$wanted'. Choices in $folder:${choices:- none}."
    printf '%s\n' "$match"
}

find_dataset() {
    find_name "$1" configs/datasets .yaml dataset
}

# Split the arguments into DATASET, SEEDS and OPTS.
parse_arguments() {
    local reserved
    DATASET=$1
    shift
    SEEDS=()
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        [[ $1 =~ ^(0|[1-9][0-9]*)$ ]] ||
            die "'$1' is no seed (a whole number); KEY VALUE settings come after --"
        SEEDS+=("$1")
        shift
    done
    [ ${#SEEDS[@]} -gt 0 ] || SEEDS=(1 2 3)
    [ $# -eq 0 ] || shift
    [ $(($# % 2)) -eq 0 ] || die "settings after -- come in pairs KEY VALUE; got $# words: $*"
    OPTS=()
    while [ $# -gt 0 ]; do
        for reserved in "${RESERVED[@]}"; do
            [ "$1" != "$reserved" ] ||
                die "$1 is set by this script: use the arguments and SHOTS, OUT, DATA, TRAINER"
        done
        OPTS+=("$1" "$(value_from_caller "$1" "$2")")
        shift 2
    done
}

# Print value $2 of key $1; an existing relative path in it is made to hold from the project root.
value_from_caller() {
    local key=$1 path=$2 prefix=''
    # What follows the first colon is a path (local-dir:PATH, NAME:FILE), but hf-hub: names no file.
    if [[ $path == *:* && $path != hf[-_]hub:* && ! -e $CALLER/$path ]]; then
        prefix=${path%%:*}:
        path=${path#*:}
    fi
    if [[ $path == */* && -e $CALLER/$path ]] ||
        [[ $key == *WEIGHTS && -z $prefix && -f $CALLER/$path ]]; then
        path=$(absolute "$path")
        path=${path#"$ROOT"/}
    fi
    printf '%s\n' "$prefix$path"
}

# Read and check the arguments and the environment; nothing runs before all are known to be good.
start() {
    local argument
    for argument in "$@"; do
        case $argument in
            -h | --help) help_text && exit 0 ;;
            --) break ;;
        esac
    done
    if [ $# -eq 0 ]; then
        echo "No DATASET given: this is the built-in demo (DATASET $DEMO). --help explains the rest."
        set -- "$DEMO"
    fi
    [ "$1" != -- ] || die "give a DATASET before --"
    parse_arguments "$@"
    SHOTS=${SHOTS:-16}
    [[ $SHOTS =~ ^(-1|[1-9][0-9]*)$ ]] || die "SHOTS is '$SHOTS': give a whole number above 0, or -1"
    DATA=$(absolute "${DATA:-data}")
    OUT=$(absolute "${OUT:-output}")
    PYTHON=${PYTHON:-python}
    [[ $PYTHON != */* ]] || PYTHON=$(absolute "$PYTHON")
    command -v "$PYTHON" >/dev/null || die "no Python '$PYTHON': set PYTHON, e.g. PYTHON=python3"
    # One folder has one name in settings.txt, however it was given.
    [ ! -d "$DATA" ] || DATA=$(CDPATH='' cd -- "$DATA" && pwd)
    cd "$ROOT"
    DATASET=$(find_dataset "$DATASET")
    TRAINER=$(find_name "${TRAINER:-QuaternionPrompt}" configs/trainers / TRAINER)
    case $DATASET in
        demo_*) CFG=${CFG:-demo} ;;
        *) CFG=${CFG:-vit_b16_c2_ep15_batch4_2ctx} ;;
    esac
    CFG=$(find_name "$CFG" "configs/trainers/$TRAINER" .yaml CFG)
    trap 'echo "stopped; to go on, give the same command again" >&2; exit 130' INT
}

# Print the folder of a run on dataset $1 with seed $2, below the folder of its kind.
place() {
    printf '%s\n' "$1/shots_$SHOTS/$TRAINER/$CFG/seed$2"
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
        what="test on the $classes classes of $dataset, seed $seed"
        eval_flags=(--model-dir "$model" --eval-only)
    fi
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

# Print the table of the runs below the given folders.
table() {
    "$PYTHON" -m dplq.results "$@"
}
