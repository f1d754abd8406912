#!/usr/bin/env bash
# Cross-dataset generalisation; bash scripts/cross_dataset.sh --help explains it.

# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh" cross-dataset "$@"
