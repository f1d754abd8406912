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
trap '' INT # Python would answer to an early Ctrl-C with a traceback
exec "$DPLQ_PYTHON" -c '
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
try:
    from dplq.experiments.requests.script import main
except ImportError as error:
    print("error: this Python lacks what the project needs (%s): set PYTHON" % error, file=sys.stderr)
    sys.exit(2)
sys.exit(main())' "$@"
