#!/usr/bin/env bash
# Base-to-new generalisation; bash scripts/base2new.sh --help explains it.

# shellcheck disable=SC2034  # read by common.sh
USAGE='usage: bash scripts/base2new.sh [DATASET [SEED ...]] [-- KEY VALUE ...]

Train on the base classes of DATASET, test on base and on new classes, and print the table of base
and new accuracy and their harmonic mean H. Results:
OUT/base2new/{train_base,test_new,test_all}/DATASET/shots_SHOTS/TRAINER/CFG/seedSEED'

# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
PROTOCOL=base2new DEFAULT_TRAINERS=QuaternionPrompt
offer_generalised
start "$@"
each_trainer base2new
table base2new_folders
finish
