# shellcheck shell=bash
# Shared code of the experiment scripts: sourced, not executed.
#
# A script sets USAGE (its own help text), PROTOCOL (selects the default configs and shots) and
# DEFAULT_TRAINERS, then calls `start "$@"`, `each_trainer FUNCTION`, `table` and `finish`.
# `start` leaves the shell in the project root with DATASET, SEEDS, OPTS, TRAINER_LIST, SHOTS_LIST,
# DATA, OUT and PYTHON set and checked. Bash 3.2 (macOS) is enough.

set -eo pipefail

CALLER=$PWD
ROOT=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)

# shellcheck source=scripts/trainers.sh
source "$ROOT/scripts/trainers.sh"
# shellcheck source=scripts/signals.sh
source "$ROOT/scripts/signals.sh"
catch_signals
# shellcheck source=scripts/runs.sh
source "$ROOT/scripts/runs.sh"

FIRST=DATASET       # name of the first argument
MORE_ENVIRONMENT='' # further lines of the help text
DEMO=demo_aerial    # the default dataset

# Settings that the scripts pass themselves: a second value would contradict the folder's name.
RESERVED=(DATASET.NUM_SHOTS DATASET.SUBSAMPLE_CLASSES DATASET.NAME DATASET.ROOT SEED OUTPUT_DIR
    TRAINER.NAME)

help_text() {
    cat <<END
$USAGE

  $(printf %-12s "$FIRST") a file of configs/datasets, without .yaml, or the NAME in it; capitals
               do not matter.
               Without any argument: the built-in demo, demo_aerial, which needs no data and
               no downloads
  SEED         whole numbers; default: 1 2 3
  KEY VALUE    settings that override the config files, e.g. -- OPTIM.MAX_EPOCH 5. An existing
               relative path is found from the current directory: one with a slash (dir/x.pt,
               local-dir:dir/x, NAME:dir/x.pt), or any file for a key ending in WEIGHTS.

Environment (default):
  DATA         folder of the datasets (data)
  OUT          folder for the results (output)
  TRAINERS     folders of configs/trainers; TRAINER is the same for one
               ($(default_trainers))
  CFG          a file of configs/trainers/TRAINER, without .yaml; CFG_CoOp and the like for one of
               several trainers (demo for the built-in datasets, else as in configs/protocols.yaml)
  SHOTS        training images per class; -1 takes all ($(default_shots))$MORE_ENVIRONMENT
  PYTHON       the Python to run (python)
DATA, OUT and PYTHON may be relative to the current directory, which may be any. Lists (seeds,
TRAINERS, SHOTS, TARGETS) are separated by white space, line breaks included; what is given twice is
run once.

A run is finished when its folder holds results.json; it is then not repeated. To go on after a
failure or a signal (Ctrl-C, kill), give the same command again. settings.txt in the folder of a run
records how it was made: a run with other settings, there or for another seed beside it, is refused,
so that no two are mixed; give another OUT, or remove the folder. A folder with neither results.json
nor prompt_learner/ (a run that failed early) refuses nothing. While a run goes on in a folder, a
second one there is refused, with the process id and host of the first. A trainer that fails does not
stop those after it.
Exit code: 0 done, 2 wrong arguments or settings, 130 Ctrl-C, 143 or 129 SIGTERM or SIGHUP, else the
code of the first run that failed.
END
}

die() {
    local message=$* newline=$'\n'
    echo "error: ${message//$newline/ }" >&2
    exit 2
}

# Set WORDS to the words of $1, separated by white space of any kind.
split_words() {
    read -ra WORDS <<<"${1//[[:space:]]/ }"
}

# Set WORDS to the words of $2, the value of variable $1; there must be one.
split_variable() {
    split_words "$2"
    [ ${#WORDS[@]} -gt 0 ] || die "$1 holds white space only: name at least one, or unset it"
}

# Append word $1 to LIST, unless it holds it.
add_once() {
    [[ " ${LIST[*]} " == *" $1 "* ]] || LIST+=("$1")
}

# Print $2, the value of $1, as an absolute path, relative to the caller's directory.
path_of() {
    local path=$2 user
    [[ $path != *$'\n'* ]] || die "$1 has a line break in it: $(printf %q "$path")"
    if [[ $path == "~"* ]]; then # the shell leaves it where it is quoted, or no such user exists
        user=${path%%/*}
        [[ $user =~ ^~([A-Za-z_][A-Za-z0-9._-]*)?$ ]] && eval "user=$user"
        [[ $user != "~"* ]] ||
            die "$1 is '$path', but there is no user '${user#"~"}'; for a folder of that name: ./$path"
        [[ $path != */* ]] && path=$user || path=$user/${path#*/}
    fi
    absolute "$path"
}

# Print path $1 as an absolute path, relative to the caller's directory.
absolute() {
    case $1 in
        /*) printf '%s\n' "$1" ;;
        *) printf '%s\n' "$CALLER/$1" ;;
    esac
}

# Print the name in folder $2 (suffix $3) that equals $1 ignoring case; $4 names its kind.
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
        # The exact name takes precedence over one that differs in case.
        if [ -z "$match" ] || [ "$name" = "$wanted" ]; then match=$name; fi
    done
    [ -n "$match" ] || die "unknown $what '$wanted'. Choices in $folder:${choices:- none}."
    printf '%s\n' "$match"
}

# Print the file of configs/datasets, without .yaml, that $1 names, or whose NAME $1 is.
find_dataset() {
    local name=$1 file=''
    if [[ $name =~ ^[A-Za-z0-9_]+$ ]] && ! (find_name "$name" configs/datasets .yaml '') &>/dev/null; then
        file=$(grep -liE "^ *NAME: *[\"']?${name}[\"']? *\$" configs/datasets/*.yaml) || true
        file=${file##*/} # the last of several
    fi
    file=${file%.yaml}
    find_name "${file:-$name}" configs/datasets .yaml dataset
}

# Split the arguments into DATASET, SEEDS and OPTS.
parse_arguments() {
    local reserved seed
    DATASET=$1
    shift
    LIST=()
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        split_words "$1"
        [ ${#WORDS[@]} -gt 0 ] || WORDS=("$1")
        for seed in "${WORDS[@]}"; do
            [[ $seed =~ ^(0|[1-9][0-9]*)$ ]] ||
                die "'$seed' is no seed (a whole number); KEY VALUE settings come after --"
            add_once "$seed"
        done
        shift
    done
    [ ${#LIST[@]} -gt 0 ] || LIST=(1 2 3)
    SEEDS=("${LIST[@]}")
    [ $# -eq 0 ] || shift
    [ $(($# % 2)) -eq 0 ] || die "settings after -- come in pairs KEY VALUE; got $# words: $*"
    OPTS=()
    while [ $# -gt 0 ]; do
        for reserved in "${RESERVED[@]}"; do
            [ "$1" != "$reserved" ] ||
                die "$1 is set by this script: use the arguments and SHOTS, OUT, DATA, TRAINERS"
        done
        OPTS+=("$1" "$(value_from_caller "$1" "$2")")
        shift 2
    done
}

# Print value $2 of key $1, with an existing relative path rewritten for the project root.
value_from_caller() {
    local key=$1 path=$2 prefix=''
    if [[ $key == DOMAIN.* && $path == \[*\] ]]; then
        values_from_caller "$key" "$path"
        return
    fi
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

# The same for a list of values, [a, b].
values_from_caller() {
    local key=$1 list=${2#\[} part joined=''
    list=${list%\]},
    while [ -n "$list" ]; do
        part=${list%%,*} list=${list#*,}
        part=${part#"${part%%[! ]*}"} part=${part%"${part##*[! ]}"}
        joined+="${joined:+, }$(value_from_caller "$key" "$part")"
    done
    printf '[%s]\n' "$joined"
}

# Parse and check the arguments and the environment; nothing runs before all are valid.
start() {
    local argument
    for argument in "$@"; do
        case $argument in
            -h | --help) help_text && exit 0 ;;
            --) break ;;
        esac
    done
    if [ $# -eq 0 ]; then
        echo "No $FIRST given: this is the built-in demo ($FIRST $DEMO). --help explains the rest."
        set -- "$DEMO"
    fi
    [ "$1" != -- ] || die "give a $FIRST before --"
    parse_arguments "$@"
    split_variable SHOTS "${SHOTS:-$(default_shots)}"
    LIST=()
    for SHOTS in "${WORDS[@]}"; do
        [[ $SHOTS =~ ^(-1|[1-9][0-9]*)$ ]] ||
            die "SHOTS is '$SHOTS': give a whole number above 0, or -1"
        add_once "$SHOTS"
    done
    SHOTS_LIST=("${LIST[@]}")
    [[ ${#SHOTS_LIST[@]} -eq 1 || $PROTOCOL == few_shot ]] ||
        die "SHOTS is '${SHOTS_LIST[*]}': one number is wanted here"
    DATA=$(path_of DATA "${DATA:-data}")
    OUT=$(path_of OUT "${OUT:-output}")
    PYTHON=${PYTHON:-python}
    [[ $PYTHON != */* ]] || PYTHON=$(path_of PYTHON "$PYTHON")
    command -v -- "$PYTHON" >/dev/null || die "no Python '$PYTHON': set PYTHON, e.g. PYTHON=python3"
    # settings.txt records one canonical path per folder.
    [ ! -d "$DATA" ] || DATA=$(CDPATH='' cd -- "$DATA" && pwd)
    cd "$ROOT"
    DATASET=$(find_dataset "$DATASET")
    choose_trainers
}

# Set TRAINER_LIST, and check that every trainer has the configs it will need.
choose_trainers() {
    local word names
    GIVEN_CFG=$CFG
    if [ -n "$TRAINERS" ]; then
        split_variable TRAINERS "$TRAINERS"
    else
        split_variable TRAINER "${TRAINER:-$DEFAULT_TRAINERS}"
    fi
    if [ "${WORDS[*]}" = all ]; then
        capture names all_trainers
        split_variable TRAINERS "$names"
    fi
    LIST=()
    for word in "${WORDS[@]}"; do
        TRAINER=$(find_name "$word" configs/trainers / TRAINER)
        add_once "$TRAINER"
    done
    TRAINER_LIST=("${LIST[@]}")
    for TRAINER in "${TRAINER_LIST[@]}"; do
        for SHOTS in "${SHOTS_LIST[@]}"; do
            capture CFG choose_config
        done
    done
}

# Print the config of TRAINER: CFG_<TRAINER>, CFG, demo on built-in datasets, or its default.
choose_config() {
    local name=$GIVEN_CFG own=CFG_$TRAINER
    [[ ! $TRAINER =~ ^[A-Za-z0-9_]+$ || -z ${!own} ]] || name=${!own}
    if [[ -z $name && $DATASET == demo_* ]]; then name=demo; fi
    [ -n "$name" ] || name=$(default_config) || exit
    find_name "$name" "configs/trainers/$TRAINER" .yaml CFG
}
