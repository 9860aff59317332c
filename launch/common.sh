# shellcheck shell=bash
# Sourced by tpu.sh and gpu.sh: flags, settings, dry runs, questions. Not to be run by itself.

# shellcheck disable=SC2034  # used where this is sourced
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

# read_settings FILE FIELDS: lines NAME=VALUE, comments and blank lines; it is read, never run. (Its own variables begin
# with an underscore: a local one of a field's name would be set in the field's place.)
read_settings() {
    local _line _name _value _number=0
    while IFS= read -r _line || [ -n "$_line" ]; do
        _number=$((_number + 1))
        _line="${_line%%#*}" && _line="${_line%"${_line##*[![:space:]]}"}"
        [ -n "$_line" ] || continue
        _name="${_line%%=*}" _value="${_line#*=}"
        _value="${_value#[\"\']}" && _value="${_value%[\"\']}"
        if [[ "$_line" != *=* ]] || ! set_field "$2" "${_name,,}" "$_value"; then
            die "$1, line $_number: '$_line' is not one of $(tr ' ' '\n' <<<"$2" | sed 's/.*/\U&=…/' | paste -sd' ')"
        fi
    done <"$1"
}

# need NAME…: each of these settings must have a value. settings_file is set where this is sourced.
need() {
    local _name
    # shellcheck disable=SC2154
    for _name in "$@"; do
        [ -n "${!_name}" ] || die "--${_name//_/-}=… is missing; give it as a flag, or as ${_name^^}=… in $settings_file"
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
