#!/usr/bin/env bash
# Runs a command on this machine and starts it again when it was preempted or killed; gpu.sh and tpu.sh use it.
#
#   ./launch/supervise.sh start FOLDER COMMAND …    in the background; FOLDER gets log, state and command
#   ./launch/supervise.sh run FOLDER COMMAND …      the same in the foreground
#   ./launch/supervise.sh status FOLDER             one line: how it goes, and the newest line of the log
#   ./launch/supervise.sh stop FOLDER               lets the command save and end, and does not start it again
#   ./launch/supervise.sh again FOLDER              start with the command of last time
#
# Started again is what ends with code 75 (cbalign train: saved after SIGTERM, or another process was lost) or was
# killed by a signal, after 5, 10, 20 … at most 300 seconds, and given up after 8 starts in a row that lasted less than
# ten minutes each. Any other code is an answer: 0 is done, 2 a mistake that needs you.
set -uo pipefail

first_pause="${SUPERVISE_PAUSE:-5}" tries="${SUPERVISE_TRIES:-8}" healthy="${SUPERVISE_HEALTHY:-600}"
longest_pause=300 grace=300

say() { echo "$1" >"$folder/state.new" && mv "$folder/state.new" "$folder/state"; echo "$(date '+%F %T') supervise: $1"; }

supervisor() { cat "$folder/pid" 2>/dev/null; }

alive() {
    local pid
    # One that has said its last word may need another moment to be gone.
    case "$(cat "$folder/state" 2>/dev/null)" in running*|ended*) ;; *) return 1 ;; esac
    pid="$(supervisor)"
    [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null
}

start() {
    if alive; then
        echo "already running ($(cat "$folder/state"))"
        return 0
    fi
    mkdir -p "$folder" || exit 1
    printf '%s\0' "$@" >"$folder/command"
    echo "running" >"$folder/state"  # at once: what the last command came to is not to be read as this one's
    # A session of its own, so that it outlives the ssh connection or terminal it was started from.
    setsid nohup "$0" run "$folder" "$@" >>"$folder/log" 2>&1 </dev/null &
    echo "$!" >"$folder/pid"
    echo "started; log in $folder/log"
}

run() {
    local pause="$first_pause" short=0 number=0 begun code
    child="" stopping=""
    mkdir -p "$folder" || exit 1
    echo "$$" >"$folder/pid"
    trap 'stopping=1; [ -n "$child" ] && kill -TERM "$child" 2>/dev/null' TERM INT
    while [ -z "$stopping" ]; do
        number=$((number + 1)) begun=$SECONDS
        say "running, start $number"
        "$@" &
        child=$!
        wait "$child"
        code=$?
        # A trap ends the first wait before the command has ended.
        [ -n "$stopping" ] && { wait "$child"; code=$?; }
        child=""
        [ -n "$stopping" ] && break
        case "$code" in
            0) say "done"; exit 0 ;;
            75) ;;
            130) say "stopped by Ctrl-C"; exit 130 ;;
            *) [ "$code" -gt 128 ] || { say "failed with code $code; see the end of $folder/log"; exit "$code"; } ;;
        esac
        if [ $((SECONDS - begun)) -ge "$healthy" ]; then short=0 pause="$first_pause"; else short=$((short + 1)); fi
        if [ "$short" -ge "$tries" ]; then
            say "given up after $short short starts in a row (code $code); see the end of $folder/log"
            exit "$code"
        fi
        say "ended with code $code; starts again in $pause s"
        sleep "$pause" &
        wait $!
        pause=$((pause * 2 > longest_pause ? longest_pause : pause * 2))
    done
    say "stopped"
}

stop() {
    local pid waited=0
    pid="$(supervisor)"
    if ! alive; then
        echo "not running ($(cat "$folder/state" 2>/dev/null || echo "never started"))"
        return 0
    fi
    kill -TERM "$pid"
    while kill -0 "$pid" 2>/dev/null; do
        if [ "$waited" -ge "$grace" ]; then
            # The session's whole group: the supervisor and what it runs.
            kill -KILL -- "-$pid" 2>/dev/null || kill -KILL "$pid"
            echo "did not end within $grace s and was killed; the newest checkpoint stays"
            return 0
        fi
        sleep 1
        waited=$((waited + 1))
    done
    cat "$folder/state"
}

status() {
    local state
    state="$(cat "$folder/state" 2>/dev/null || echo "never started")"
    case "$state" in running*|ended*) alive || state="gone without a word (host restarted?), last: $state" ;; esac
    echo "$state | $(tail -n 1 "$folder/log" 2>/dev/null)"
}

action="${1:-}" folder="${2:-}"
case "$action" in
    start|run) [ "$#" -ge 3 ] || { echo "$action needs FOLDER and COMMAND" >&2; exit 2; }; shift 2; "$action" "$@" ;;
    status|stop) [ -n "$folder" ] || { echo "$action needs FOLDER" >&2; exit 2; }; "$action" ;;
    again)
        [ -e "$folder/command" ] || { echo "nothing was started in $folder yet" >&2; exit 2; }
        mapfile -d '' -t command <"$folder/command"
        start "${command[@]}" ;;
    -h|--help) sed -n '2,13s/^# \{0,1\}//p' "$0" ;;
    *) echo "unknown action '$action'; see $0 --help" >&2; exit 2 ;;
esac
