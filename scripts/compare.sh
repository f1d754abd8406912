#!/usr/bin/env bash
# All trainers on one dataset; bash scripts/compare.sh --help explains it.

# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh" compare "$@"
