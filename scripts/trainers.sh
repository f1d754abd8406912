# shellcheck shell=bash
# Default configs and properties of the trainers: part of common.sh. They are data,
# configs/protocols.yaml, read by dplq/experiments/protocols.py.

protocols() {
    "$PYTHON" -m dplq.experiments.protocols "$@"
}

# Print all trainers that have configs.
all_trainers() {
    protocols trainers
}

# Print DEFAULT_TRAINERS for the help text, which must work without Python.
default_trainers() {
    if [ "$DEFAULT_TRAINERS" != all ]; then
        echo "$DEFAULT_TRAINERS"
    else
        sed -n 's/^\([A-Za-z0-9]*\):.*/\1/p' "$ROOT/configs/protocols.yaml" | paste -s -d ' ' -
    fi
}

# Print the default config of TRAINER for PROTOCOL (base2new, few_shot or transfer) and SHOTS.
default_config() {
    protocols config "$TRAINER" "$PROTOCOL" "$SHOTS" || exit 2
}

# Print the shots of PROTOCOL.
default_shots() {
    if [ "$PROTOCOL" = few_shot ]; then echo 1 2 4 8 16; else echo 16; fi
}

# Succeed if TRAINER uses training images; one that does not is run once for all shots.
is_trained() {
    protocols is "$TRAINER" trained
}

# Succeed if TRAINER can classify classes it was not trained on; a linear layer cannot.
can_name_classes() {
    protocols is "$TRAINER" any_classes ||
        { echo "$TRAINER cannot name other classes than its own: no test on them" && false; }
}
