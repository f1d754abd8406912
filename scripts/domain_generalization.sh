#!/usr/bin/env bash
# Domain generalisation; bash scripts/domain_generalization.sh --help explains it.

# shellcheck disable=SC2034  # read by transfer.sh and common.sh
USAGE='usage: bash scripts/domain_generalization.sh [SOURCE [SEED ...]] [-- KEY VALUE ...]

Train on all classes of SOURCE, test on all images (training images included) of other datasets
with their own classes: the ...v2 datasets. Print the table. Results:
OUT/SOURCE/shots_SHOTS/TRAINER/CFG/seedSEED (shared with few_shot.sh and cross_dataset.sh) and
OUT/evaluation/SOURCE/TRAINER/CFG_SHOTSshots/TARGET/seedSEED'
# shellcheck disable=SC2034
TARGET_KIND=whole TARGET_TEXT="the v2 datasets of SOURCE's domain that lie under DATA, but its own"

# shellcheck source=scripts/transfer.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/transfer.sh"
