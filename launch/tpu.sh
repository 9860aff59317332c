#!/usr/bin/env bash
# Trains on a Cloud TPU, from one host to a pod. Needs gcloud, logged in (gcloud auth login), with the TPU API enabled.
#
#   ./launch/tpu.sh create --name=codis --zone=us-central2-b --type=v4-32 [--queued] [--spot] [--project=ID]
#   ./launch/tpu.sh setup                    installs this checkout with the versions of constraints.txt on all workers
#   ./launch/tpu.sh train --config=paper/pretrain --workdir=gs://BUCKET/codis [--data=gs://BUCKET/tfds]
#                         [--config.KEY=VALUE …]    on all workers, each under launch/supervise.sh
#   ./launch/tpu.sh run [--data=gs://BUCKET/tfds] -- evaluate --workdir=gs://BUCKET/codis --split=test
#                                            any other cbalign command, in the same way; paper.sh runs a whole suite
#   ./launch/tpu.sh status                   the state of the TPU, and of the run on each worker
#   ./launch/tpu.sh logs [--worker=all]      follows the log of worker 0, of another worker, or of all
#   ./launch/tpu.sh stop                     saves and stops the run; the TPU remains and is billed
#   ./launch/tpu.sh resume [--watch]         restores what is missing: the TPU, the installation, the run. With --watch it
#                                            keeps doing so after every preemption until the run is done. cbalign
#                                            arguments after -- replace those of the last run
#   ./launch/tpu.sh interrupt --signal=TERM|KILL     sends the next training on worker 0 a signal just before its first step,
#                                            as a preemption may; the supervisor starts it again (paper.sh --rehearse)
#   ./launch/tpu.sh delete [--yes]           deletes the TPU and its disks; the bucket is not touched
#
# --dry-run prints every command without running any. Settings can be kept in tpu.env (or --settings=FILE) as NAME=VALUE:
# NAME, ZONE, TYPE, VERSION (runtime version; by default the one for the type), PROJECT, QUEUED=yes, SPOT=yes, CONFIG,
# WORKDIR, DATA. Flags override them. With --queued the request waits until capacity is available.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
settings_file=tpu.env
# shellcheck source=launch/common.sh
source launch/common.sh

fields="name zone type version project queued spot config workdir data"
name="" zone="" type="" version="" project="" queued="" spot="" config="" workdir="" data=""
worker=0 watch="" signal="" yes="" settings="" pause="${TPU_PAUSE:-30}" arguments=()

parse() {
    local argument flag value rest="" flags=()
    for argument in "$@"; do
        flag="${argument%%=*}" value="${argument#*=}"
        # Everything after "--" is passed to cbalign.
        if [ -n "$rest" ]; then arguments+=("$argument"); continue; fi
        case "$argument" in
            --) rest=yes ;;
            --dry-run) dry_run=yes ;;
            --yes) yes=yes ;;
            --watch) watch=yes ;;
            --queued|--spot) flags+=("${flag#--}" yes) ;;
            --worker=all|--worker=[0-9]*) worker="$value" ;;
            --signal=TERM|--signal=KILL) signal="$value" ;;
            --settings=*) settings="$value"; [ -f "$settings" ] || die "no file $settings" ;;
            --config.*=*) overrides+=("$argument") ;;
            --*=*) [[ " $fields " == *" ${flag#--} "* ]] || die "unknown argument $argument; see $0 --help"
                flags+=("${flag#--}" "$value") ;;
            *) die "unknown argument $argument; see $0 --help" ;;
        esac
    done
    if [ -z "$settings" ] && [ -f "$settings_file" ]; then settings="$settings_file"; fi
    [ -z "$settings" ] || read_settings "$settings" "$fields"
    for ((argument = 0; argument < ${#flags[@]}; argument += 2)); do
        set_field "$fields" "${flags[argument]}" "${flags[argument + 1]}"
    done
    need name zone
    [[ "$name" =~ ^[a-z][a-z0-9-]*$ ]] || die "--name=$name must consist of lowercase letters, digits and hyphens"
    folder=".launch/$name"
}

# Exits with gcloud's error and its remedy in one line. The first pattern that matches wins.
explain() {
    local said remedy list="gcloud compute tpus"
    said="$(grep -E 'ERROR|error:|Permission denied|refused|timed out' "$errors" | head -n 1 || true)"
    [ -n "$said" ] || said="$(tail -n 1 "$errors")"
    case "$(<"$errors")" in
        *"no more capacity"*|*"nsufficient"*"capacity"*|*"RESOURCE_POOL_EXHAUSTED"*)
            remedy="no $type available in $zone now; queue the request with --queued, or try --spot or another --zone" ;;
        *[Qq]uota*|*"RESOURCE_EXHAUSTED"*)
            remedy="no quota for ${type:-this TPU} in $zone (spot has a separate one); request it under"
            remedy+=" IAM & Admin > Quotas, or use another --zone" ;;
        *"denied on 'locations/"*|*"nvalid zone"*|*"nknown zone"*|*"ocation $zone is not found"*| \
        *"ocations/$zone was not found"*)
            remedy="no zone $zone with TPUs for this project; list zones with: $list locations list" ;;
        *"ccelerator"*"not found"*|*"nvalid"*"ccelerator"*|*"ccelerator"*"nvalid"*)
            remedy="no type $type in $zone; list types with: $list accelerator-types list --zone=$zone" ;;
        *"untime"*"not found"*|*"nvalid"*"untime"*)
            remedy="no runtime version $version; list versions with: $list versions list --zone=$zone" ;;
        *"auth login"*|*"UNAUTHENTICATED"*|*"eauthentication"*)
            remedy="gcloud is not logged in; run: gcloud auth login" ;;
        *"SERVICE_DISABLED"*|*"has not been used in project"*)
            remedy="the TPU API is disabled; run: gcloud services enable tpu.googleapis.com" ;;
        *"ALREADY_EXISTS"*|*"already exists"*)
            remedy="there already is a TPU $name in $zone; continue with: $0 resume, or choose another --name" ;;
        *"publickey"*|*"onnection refused"*|*"timed out"*|*"onnection closed"*|*"exit code 255"*|*"status code [255]"*)
            remedy="ssh to $name was refused; if it was just created, wait a minute, then check"
            remedy+=" gcloud compute config-ssh and that the firewall allows port 22" ;;
        *"NOT_FOUND"*|*"was not found"*)
            remedy="no TPU $name in $zone; create it with: $0 create" ;;
        *"PERMISSION_DENIED"*)
            remedy="your account lacks permission; it needs the role roles/tpu.admin" ;;
        *) die "gcloud failed: $said" 1 ;;
    esac
    die "$remedy ($said)" 1
}

# tpu KIND ACTION …: runs a gcloud command on this TPU; a failure is explained in one line.
tpu() {
    local command=(gcloud compute tpus "$1" "$2" "$name" "--zone=$zone" ${project:+"--project=$project"} "${@:3}")
    run "${command[@]}" 2>"$errors" || explain
}

# on_workers WORKER COMMAND: runs a shell command on one worker or on all, showing output and errors as they arrive.
on_workers() {
    local command=(gcloud compute tpus tpu-vm ssh "$name" "--zone=$zone" ${project:+"--project=$project"} "--worker=$1"
                   "--command=$2")
    run "${command[@]}" 2> >(tee "$errors" >&2) || { wait $! 2>/dev/null || true; explain; }
}

# Prints READY, CREATING, PREEMPTED …, or NONE; for a queued request without a TPU, the state of the request.
state() {
    local scope=(--zone="$zone" ${project:+"--project=$project"}) found
    if found="$(gcloud compute tpus tpu-vm describe "$name" "${scope[@]}" "--format=value(state)" 2>"$errors")"; then
        echo "$found"
    elif ! grep -qE 'NOT_FOUND|not found' "$errors"; then
        explain
    elif [ -n "$queued" ]; then
        gcloud compute tpus queued-resources describe "$name" "${scope[@]}" "--format=value(state.state)" 2>"$errors" ||
            echo NONE
    else
        echo NONE
    fi
}

create() {
    need type
    case "$type" in
        v5lite*) version="${version:-v2-alpha-tpuv5-lite}" ;;
        v5p*) version="${version:-v2-alpha-tpuv5}" ;;
        v6e*) version="${version:-v2-alpha-tpuv6e}" ;;
        *) version="${version:-tpu-ubuntu2204-base}" ;;
    esac
    echo "Requesting $name, a $type in $zone${queued:+, queued}${spot:+, spot}"
    if [ -n "$queued" ]; then
        tpu queued-resources create "--node-id=$name" "--accelerator-type=$type" "--runtime-version=$version" \
            ${spot:+--spot}
    else
        tpu tpu-vm create "--accelerator-type=$type" "--version=$version" ${spot:+--spot}
    fi
    [ -n "$dry_run" ] || wait_until_ready
}

wait_until_ready() {
    local now before=""
    while now="$(state)" && [ "$now" != READY ]; do
        case "$now" in
            FAILED|SUSPENDED) die "the request for $name is $now; remove it with: $0 delete, then create it again" 1 ;;
        esac
        [ "$now" = "$before" ] || echo "$name is $now; waiting (Ctrl-C is safe: the request remains)"
        before="$now"
        sleep "$pause"
    done
    [ "$now" = READY ] || exit 1
    echo "$name is READY"
}

setup() {
    local package=".launch/cbalign.tgz"
    mkdir -p .launch
    run tar --exclude=__pycache__ -czf "$package" cbalign configs launch setup.py constraints.txt README.md LICENSE
    run gcloud compute tpus tpu-vm scp "$package" "$name:cbalign.tgz" "--zone=$zone" ${project:+"--project=$project"} \
        --worker=all 2>"$errors" || explain
    # The TPU's Ubuntu has Python 3.10; uv installs a newer one if needed.
    # shellcheck disable=SC2016  # expanded by the worker's shell
    on_workers all 'set -e; mkdir -p cbalign; tar -xzf cbalign.tgz -C cbalign; cd cbalign
if ! python3 -c "import sys; sys.exit(sys.version_info < (3, 11))"; then
    python3 -m pip install --quiet --user uv; PATH="$HOME/.local/bin:$PATH"
    uv python install --quiet 3.11; PYTHON="$(uv python find 3.11)"; export PYTHON
fi
source launch/setup.sh; setup train,emoji,report,tpu'
    [ -n "$dry_run" ] || echo "installed on all workers of $name"
}

train() { as_train; begin; }

# Sets the arguments of a training run from flags and settings.
as_train() {
    need config workdir
    need_config "$config"
    case "$workdir" in
        gs://*|/*) ;;
        *) die "--workdir=$workdir would be on each worker's own disk; name a gs://BUCKET/FOLDER or a shared folder" ;;
    esac
    arguments=(train "--config=$config" "--workdir=$workdir" ${data:+"--config.data.dir=$data"}
               ${overrides[@]+"${overrides[@]}"})
}

run_command() {
    [ "${#arguments[@]}" -gt 0 ] ||
        die "nothing to run; pass the arguments of cbalign after --, for example: $0 run -- evaluate --workdir=gs://…"
    begin
}

# Starts cbalign with these arguments on all workers.
begin() {
    local command=(env "JAX_PLATFORMS=tpu,cpu" ${data:+"TFDS_DATA_DIR=$data"} .venv/bin/cbalign "${arguments[@]}")
    if [ -z "$dry_run" ]; then
        # resume starts this on a new TPU.
        mkdir -p "$folder"
        printf '%s\0' "data=$data" "${arguments[@]}" >"$folder/started"
    fi
    on_workers all "cd cbalign && ./launch/supervise.sh start $folder $(quoted "${command[@]}")"
    [ -n "$dry_run" ] || echo "running; follow it with: $0 logs, and keep it running with: $0 resume --watch"
}

status() {
    local now
    if [ -n "$dry_run" ]; then now=READY; tpu tpu-vm describe "--format=value(state)"; else now="$(state)" || exit 1; fi
    [ -n "$dry_run" ] || echo "$name in $zone: $now"
    [ "$now" != READY ] || on_workers all "cd cbalign && echo \"\$(hostname): \$(./launch/supervise.sh status $folder)\""
}

logs() {
    on_workers "$worker" "cd cbalign && tail -n 50 -F $folder/log | sed -u \"s/^/\$(hostname): /\""
}

stop() { on_workers all "cd cbalign && ./launch/supervise.sh stop $folder"; }

# Waits for what a training logs before its first step; the log of earlier commands does not count.
interrupt() {
    need signal
    on_workers 0 "cd cbalign && mkdir -p $folder && touch $folder/log && begun=\$(wc -c <$folder/log) &&
timeout 900 sh -c 'until tail -c +\$1 $folder/log | grep -q \"^chance levels\"; do sleep 0.2; done' - \$((begun + 1)) &&
kill -$signal \$(pgrep -P \"\$(cat $folder/pid)\") && echo \"SIG$signal to the training on worker 0\""
}

remove() {
    if [ -n "$queued" ]; then
        tpu queued-resources delete --force --quiet
    else
        tpu tpu-vm delete --quiet
    fi
}

delete() {
    sure "Delete $name in $zone with its disks (the bucket is not touched)?"
    remove
    [ -n "$dry_run" ] || echo "deleted $name"
}

remembered() {
    local items=()
    [ "${#arguments[@]}" -eq 0 ] || return 0
    if [ ! -f "$folder/started" ]; then
        [ -n "$workdir" ] || die "nothing was started on $name from this checkout; use: $0 train"
        as_train
        return
    fi
    mapfile -d '' -t items <"$folder/started"
    data="${items[0]#data=}" arguments=("${items[@]:1}")
}

# Restores what is missing.
repair() {
    local now=PREEMPTED
    [ -n "$dry_run" ] || now="$(state)" || exit 1
    case "$now" in
        READY) ;;
        CREATING|STARTING|RESTARTING|REPAIRING|ACCEPTED|PROVISIONING|WAITING_FOR_RESOURCES|ACTIVE)
            wait_until_ready
            setup ;;
        STOPPED) tpu tpu-vm start; wait_until_ready ;;
        NONE) create; setup ;;
        *) echo "$name is $now; recreating it"; remove; create; setup ;;
    esac
    begin
}

resume() {
    local failed=0 report
    remembered
    repair
    while [ -n "$watch" ] && [ -z "$dry_run" ]; do
        sleep "$pause"
        # In a subshell: a failed repair is retried later, at most ten times in a row.
        if report="$(status 2>&1)" && [[ "$report" == *": READY"* ]]; then
            failed=0
            if grep -qE ': (failed|given up)' <<<"$report"; then
                die "the run failed: $(grep -m1 -E ': (failed|given up)' <<<"$report")" 1
            fi
            if ! grep -qvE 'READY|: done' <<<"$report"; then echo "the run is done"; break; fi
            grep -qE 'disappeared|never started' <<<"$report" || continue
        fi
        (repair) || failed=$((failed + 1))
        [ "$failed" -lt 10 ] || die "repairing failed ten times in a row; see: $0 status" 1
    done
}

action="${1:-}"
case "$action" in
    create|setup|train|status|logs|stop|resume|interrupt|delete) shift ;;
    run) action=run_command; shift ;;
    -h|--help) usage; exit 0 ;;
    *) die "unknown action '$action'; see $0 --help" ;;
esac
parse "$@"
errors="$(mktemp)"
trap 'rm -f "$errors"' EXIT
[ -n "$dry_run" ] || command -v gcloud >/dev/null ||
    die "no gcloud here; install it: https://cloud.google.com/sdk/docs/install"
"$action"
