#!/usr/bin/env bash
# Cross-dataset generalisation; bash scripts/cross_dataset.sh --help explains it.

# shellcheck disable=SC2034  # read by transfer.sh and common.sh
USAGE='usage: bash scripts/cross_dataset.sh [SOURCE [SEED ...]] [-- KEY VALUE ...]

Train on all classes of SOURCE, test on the test images of other datasets with their own classes,
and print the table. Results: OUT/SOURCE/shots_SHOTS/TRAINER/CFG/seedSEED (shared with few_shot.sh)
and OUT/evaluation/SOURCE/TRAINER/CFG_SHOTSshots/TARGET/seedSEED'
# shellcheck disable=SC2034
TARGET_KIND=cross TARGET_TEXT="the other datasets of SOURCE's domain that lie under DATA"

# shellcheck source=scripts/transfer.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/transfer.sh"
