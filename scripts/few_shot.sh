#!/usr/bin/env bash
# Few-shot learning curve; bash scripts/few_shot.sh --help explains it.

# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh" few-shot "$@"
