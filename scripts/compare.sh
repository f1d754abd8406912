#!/usr/bin/env bash
# All trainers on one dataset; bash scripts/compare.sh --help explains it.

# shellcheck disable=SC2034  # read by common.sh
USAGE='usage: bash scripts/compare.sh [DATASET [SEED ...]] [-- KEY VALUE ...]

Base-to-new generalisation of all trainers on DATASET, in one table: base and new accuracy, their
harmonic mean H, learnable parameters, seconds per training step, peak memory and checkpoint size.
The runs are those of base2new.sh, which are shared:
OUT/base2new/{train_base,test_new,test_all}/DATASET/shots_SHOTS/TRAINER/CFG/seedSEED'

# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
PROTOCOL=base2new DEFAULT_TRAINERS=all
offer_generalised
start "$@"
each_trainer base2new
table base2new_folders --costs
finish
