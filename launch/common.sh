# shellcheck shell=bash
# Helpers of gpu.sh, tpu.sh and paper.sh: settings files, dry runs, confirmation. Sourced, not a command of its own.

# shellcheck disable=SC2034  # used by the scripts that source this file
dry_run="" overrides=() errors=""

# die MESSAGE [CODE]: prints one line and exits, with code 2 (a user's mistake) unless another is given.
die() { echo "${0##*/}: $1" >&2; exit "${2:-2}"; }

# Prints the comment at the top of the script.
usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; }

# Prints a command as one line that can be pasted into a shell.
quoted() { local line; printf -v line '%q ' "$@"; echo "${line% }"; }

# Runs a command, or prints it with --dry-run.
run() { if [ -n "$dry_run" ]; then quoted "$@"; else "$@"; fi; }

# set_field FIELDS NAME VALUE: sets the variable NAME if it is one of FIELDS; fails otherwise.
set_field() {
    [[ " $1 " == *" $2 "* ]] || return 1
    printf -v "$2" '%s' "$3"
}

# read_settings FILE FIELDS: reads lines NAME=VALUE, comments and blank lines; the file is never executed. Local variables
# begin with an underscore so that none of them hides a field of the same name.
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

# need NAME…: each of these settings must have a value. The sourcing script sets settings_file.
need() {
    local _name
    # shellcheck disable=SC2154
    for _name in "$@"; do
        [ -n "${!_name}" ] || die "--${_name//_/-}=… is missing; pass it as a flag, or set ${_name^^}=… in $settings_file"
    done
}

# need_config CONFIG: it must be a file or the name of a config in configs/ ("emoji", "paper/ablation:sinkhorn").
need_config() {
    local file="${1%%:*}" name
    name="${file#configs/}"
    [ -f "$file" ] || [ -f "configs/${name%.py}.py" ] ||
        die "no config file $1; name a Python file, or a config in configs/ such as emoji or paper/pretrain"
}

# sure QUESTION: asks for confirmation on the terminal; --yes confirms in advance.
sure() {
    # shellcheck disable=SC2154  # the sourcing script sets yes
    [ -z "$yes" ] && [ -z "$dry_run" ] || return 0
    [ -t 0 ] || [ -n "${ANSWER_FROM_STDIN:-}" ] || die "$1 Confirm with --yes"
    local answer
    read -r -p "$1 [y/N] " answer
    [[ "$answer" == [yY]* ]] || die "nothing was changed" 1
}
