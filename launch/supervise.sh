#!/usr/bin/env bash
# Runs a command on this machine and restarts it after a preemption or a crash by signal. Used by gpu.sh and tpu.sh.
#
#   ./launch/supervise.sh start FOLDER COMMAND …    in the background; FOLDER holds log, state and command
#   ./launch/supervise.sh run FOLDER COMMAND …      the same in the foreground
#   ./launch/supervise.sh status FOLDER             one line: the state, and the last line of the log
#   ./launch/supervise.sh stop FOLDER               lets the command save and exit, without a restart
#   ./launch/supervise.sh again FOLDER              starts the previous command again
#
# A command is restarted when it exits with code 75 (cbalign train: saved after SIGTERM, or lost another process) or is
# killed by a signal. The delay doubles from 5 to at most 300 seconds; after 8 consecutive runs of less than ten minutes
# the supervisor gives up. Every other exit code is final: 0 means done, 2 a mistake for the user to correct.
set -uo pipefail

first_pause="${SUPERVISE_PAUSE:-5}" tries="${SUPERVISE_TRIES:-8}" healthy="${SUPERVISE_HEALTHY:-600}"
longest_pause=300 grace=300

say() { echo "$1" >"$folder/state.new" && mv "$folder/state.new" "$folder/state"; echo "$(date '+%F %T') supervise: $1"; }

supervisor() { cat "$folder/pid" 2>/dev/null; }

alive() {
    local pid
    # A supervisor with a final state may take another moment to exit.
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
    echo "running" >"$folder/state"  # now, so that the previous command's state is not taken for this one's
    # In a session of its own, so that it outlives the ssh connection or terminal.
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
        # A trap interrupts the first wait before the command has exited.
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
            say "given up after $short short runs in a row (code $code); see the end of $folder/log"
            exit "$code"
        fi
        say "ended with code $code; restarting in $pause s"
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
            # The whole process group: the supervisor and its command.
            kill -KILL -- "-$pid" 2>/dev/null || kill -KILL "$pid"
            echo "did not exit within $grace s and was killed; the latest checkpoint remains"
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
    case "$state" in running*|ended*) alive || state="disappeared (host restarted?), last state: $state" ;; esac
    echo "$state | $(tail -n 1 "$folder/log" 2>/dev/null)"
}

action="${1:-}" folder="${2:-}"
case "$action" in
    start|run) [ "$#" -ge 3 ] || { echo "$action needs FOLDER and COMMAND" >&2; exit 2; }; shift 2; "$action" "$@" ;;
    status|stop) [ -n "$folder" ] || { echo "$action needs FOLDER" >&2; exit 2; }; "$action" ;;
    again)
        [ -e "$folder/command" ] || { echo "nothing has been started in $folder" >&2; exit 2; }
        mapfile -d '' -t command <"$folder/command"
        start "${command[@]}" ;;
    -h|--help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" ;;
    *) echo "unknown action '$action'; see $0 --help" >&2; exit 2 ;;
esac
