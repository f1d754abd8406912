#!/usr/bin/env bash
# Base-to-new generalisation; bash scripts/base2new.sh --help explains it.

# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh" base2new "$@"
