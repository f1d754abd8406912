# shellcheck shell=bash
# Default configs and properties of the trainers: part of common.sh. They are data,
# configs/protocols.yaml, for which dplq/experiments/protocols.py answers.

# Print the answer of dplq.experiments.protocols; exit with 2 where there is none.
protocols() {
    "$PYTHON" -m dplq.experiments.protocols "$@" || exit 2
}

# Print all trainers that have configs.
all_trainers() {
    protocols trainers
}

# Print DEFAULT_TRAINERS for the help text, which must work without Python.
default_trainers() {
    local names folder
    if [ "$DEFAULT_TRAINERS" != all ]; then
        echo "$DEFAULT_TRAINERS"
        return
    fi
    names=$(sed -n 's/^\([A-Za-z0-9_-]*\):.*/\1/p' "$ROOT/configs/protocols.yaml" | paste -s -d ' ' -)
    for folder in "$ROOT"/configs/trainers/*/; do
        folder=$(basename "$folder")
        [[ " $names " == *" $folder "* ]] || names+=" $folder"
    done
    echo "$names"
}

# Print the default config of TRAINER for PROTOCOL (base2new, few_shot or transfer) and SHOTS.
default_config() {
    protocols config "$TRAINER" "$PROTOCOL" "$SHOTS"
}

# Print the shots of PROTOCOL.
default_shots() {
    if [ "$PROTOCOL" = few_shot ]; then echo 1 2 4 8 16; else echo 16; fi
}

# Have the script take GENERALISED, and explain it.
offer_generalised() {
    MORE_ENVIRONMENT="
  GENERALISED  yes: test the model of the base classes among all class names together, too; not for
               trainers that only know the classes they were trained on (no)"
    GENERALISED=${GENERALISED:-no}
    [[ $GENERALISED == yes || $GENERALISED == no ]] ||
        die "GENERALISED is '$GENERALISED': give yes or no"
}

# Succeed if TRAINER has property $1 of configs/protocols.yaml.
has_property() {
    local answer
    capture answer protocols has "$TRAINER" "$1"
    [ "$answer" = yes ]
}

# Succeed if TRAINER uses training images; one that does not is run once for all shots.
is_trained() {
    has_property trained
}

# Succeed if TRAINER can classify classes it was not trained on; a linear layer cannot.
can_name_classes() {
    has_property any_classes ||
        { echo "$TRAINER cannot name other classes than its own: no test on them" && false; }
}
