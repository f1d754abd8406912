# shellcheck shell=bash
# Signals: passed on to the running child, which is waited for. Part of common.sh.

CHILD=''     # process id of the child; "starting" until it is known
SIGNALS=0    # how many signals have come
STOP_CODE='' # exit code for the first of them
STOP_MESSAGE='stopped; to go on, give the same command again'

# From now on, a signal ends the child first, then the script.
catch_signals() {
    trap 'on_signal 129' HUP
    trap 'on_signal 130' INT
    trap 'on_signal 131' QUIT
    trap 'on_signal 143' TERM
}

# Pass a signal on; without a child, end the script with code $1.
on_signal() {
    STOP_CODE=${STOP_CODE:-$1}
    SIGNALS=$((SIGNALS + 1))
    [ "$CHILD" = starting ] || pass_on
    [ -n "$CHILD" ] || end_if_stopped
}

# bash starts a child in the background with INT ignored, so it gets TERM for all signals.
pass_on() {
    [ -z "$CHILD" ] || kill -TERM "$CHILD" 2>/dev/null || true
}

# Run a command as a child that receives the signals; return its exit code once it has ended.
supervise() {
    local code seen
    CHILD=starting
    "$@" <&0 & # a child in the background would read /dev/null
    CHILD=$!
    [ -z "$STOP_CODE" ] || pass_on
    while :; do
        seen=$SIGNALS
        code=0
        wait "$CHILD" || code=$?
        [ "$seen" != "$SIGNALS" ] || break # else a signal ended `wait`, not the child
    done
    CHILD=''
    return "$code"
}

# Set variable $1 to what the command after it prints; exit with its code if it fails. Ctrl-C waits
# for the answer: Python would print a traceback.
capture() {
    local answer_
    answer_=$(trap '' INT QUIT && "${@:2}") || exit
    printf -v "$1" %s "$answer_"
}

# Exit if a signal has come; callers of `supervise` do this when they are done with the child.
end_if_stopped() {
    [ -n "$STOP_CODE" ] || return 0
    [ -z "$STOP_MESSAGE" ] || echo "$STOP_MESSAGE" >&2
    exit "$STOP_CODE"
}

# Begin a part of the script that runs as a child of it: the script passes the signals on.
become_child() {
    CHILD='' SIGNALS=0 STOP_CODE='' STOP_MESSAGE=''
    catch_signals
    trap '' INT QUIT # from a terminal they reach both, and the script sends TERM
}
