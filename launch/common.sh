# shellcheck shell=bash
# Sourced by tpu.sh and gpu.sh: flags, settings, dry runs, questions. Not to be run by itself.

dry_run="" overrides=() errors=""

# A mistake of the user, or what the cloud would not do: one line and code 2, or another one.
die() { echo "${0##*/}: $1" >&2; exit "${2:-2}"; }

# The comment at the top of the script.
usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; }

# The command as one line that a shell would take back.
quoted() { local line; printf -v line '%q ' "$@"; echo "${line% }"; }

# Runs a command, or prints it with --dry-run.
run() { if [ -n "$dry_run" ]; then quoted "$@"; else "$@"; fi; }

# set_field FIELDS NAME VALUE: sets the variable of one of the known fields; fails for another name.
set_field() {
    [[ " $1 " == *" $2 "* ]] || return 1
    printf -v "$2" '%s' "$3"
}

# read_settings FILE FIELDS: lines NAME=VALUE, comments and blank lines; it is read, never run.
read_settings() {
    local line name value number=0
    while IFS= read -r line || [ -n "$line" ]; do
        number=$((number + 1))
        line="${line%%#*}" && line="${line%"${line##*[![:space:]]}"}"
        [ -n "$line" ] || continue
        name="${line%%=*}" value="${line#*=}"
        value="${value#[\"\']}" && value="${value%[\"\']}"
        [[ "$line" == *=* ]] && set_field "$2" "${name,,}" "$value" ||
            die "$1, line $number: '$line' is not one of $(tr ' ' '\n' <<<"$2" | sed 's/.*/\U&=…/' | paste -sd' ')"
    done <"$1"
}

# need NAME…: each of these settings must have a value.
need() {
    local name
    for name in "$@"; do
        [ -n "${!name}" ] || die "--$name=… is missing; give it as a flag, or as ${name^^}=… in tpu.env"
    done
}

# sure QUESTION: yes or no on the terminal; --yes answers beforehand.
sure() {
    [ -z "$yes" ] && [ -z "$dry_run" ] || return 0
    [ -t 0 ] || [ -n "${ANSWER_FROM_STDIN:-}" ] || die "$1 Say so with --yes"
    local answer
    read -r -p "$1 [y/N] " answer
    [[ "$answer" == [yY]* ]] || die "nothing was done" 1
}
