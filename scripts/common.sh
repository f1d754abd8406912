# shellcheck shell=bash
# Sourced by the scripts with a protocol and their arguments: hands over to the Python that the
# variable PYTHON names, in the root of the checkout. dplq/experiments/requests/script.py does the
# rest. Bash 3.2 (macOS) is enough.

set -e
export DPLQ_CALLER=$PWD DPLQ_PYTHON=${PYTHON:-python}
[[ $DPLQ_PYTHON != "~/"* ]] || DPLQ_PYTHON=$HOME/${DPLQ_PYTHON#"~/"} # quoted, the shell leaves it
[[ $DPLQ_PYTHON != */* || $DPLQ_PYTHON == /* ]] || DPLQ_PYTHON=$PWD/$DPLQ_PYTHON
if ! command -v -- "$DPLQ_PYTHON" >/dev/null; then
    echo "error: no Python '$DPLQ_PYTHON': set PYTHON, e.g. PYTHON=python3" >&2
    exit 2
fi
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
"$DPLQ_PYTHON" -c 'import dplq.errors' || exit 2 # a Python without the project ends the script
exec "$DPLQ_PYTHON" -m dplq.experiments.requests.script "$@"
