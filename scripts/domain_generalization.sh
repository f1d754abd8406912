#!/usr/bin/env bash
# Domain generalisation; bash scripts/domain_generalization.sh --help explains it.

# shellcheck source=scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh" domain-generalization "$@"
