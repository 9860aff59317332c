#!/usr/bin/env bash
# Trains on a Cloud TPU, from one host to a pod. Needs gcloud, logged in (gcloud auth login), with the TPU API enabled.
#
#   ./launch/tpu.sh create --name=codis --zone=us-central2-b --type=v4-32 [--queued] [--spot] [--project=ID]
#   ./launch/tpu.sh setup                    this tree and the versions of constraints.txt, on all workers
#   ./launch/tpu.sh train --config=configs/paper/pretrain.py --workdir=gs://BUCKET/codis [--data=gs://BUCKET/tfds]
#                         [--config.KEY=VALUE …]    on all workers, each under launch/supervise.sh
#   ./launch/tpu.sh run [--data=gs://BUCKET/tfds] -- evaluate --workdir=gs://BUCKET/codis --split=test
#                                            any other command of cbalign, in the same way; paper.sh runs all of a suite
#   ./launch/tpu.sh status                   state of the TPU, and of the run on each worker
#   ./launch/tpu.sh logs [--worker=all]      follows the log of worker 0, of another one, or of all
#   ./launch/tpu.sh stop                     saves and stops the run; the TPU stays (and costs)
#   ./launch/tpu.sh resume [--watch]         whatever is missing: the TPU, the installation, the run. With --watch it
#                                            stays and does so after every preemption, until the run is done; with
#                                            the arguments of cbalign behind --, that run and not the last one
#   ./launch/tpu.sh delete [--yes]           the TPU and its disks; what lies in the bucket stays
#
# --dry-run prints every command and runs none. Settings may stand in tpu.env (or --settings=FILE) as NAME=VALUE:
# NAME, ZONE, TYPE, VERSION (of the TPU's system; chosen by the type), PROJECT, QUEUED=yes, SPOT=yes, CONFIG, WORKDIR,
# DATA. A flag goes before. With --queued the request waits in line until there is room.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
settings_file=tpu.env
# shellcheck source=launch/common.sh
source launch/common.sh

fields="name zone type version project queued spot config workdir data"
name="" zone="" type="" version="" project="" queued="" spot="" config="" workdir="" data=""
worker=0 watch="" yes="" settings="" pause="${TPU_PAUSE:-30}" arguments=()

parse() {
    local argument flag value rest="" flags=()
    for argument in "$@"; do
        flag="${argument%%=*}" value="${argument#*=}"
        # Behind "--" stand the arguments of cbalign itself.
        if [ -n "$rest" ]; then arguments+=("$argument"); continue; fi
        case "$argument" in
            --) rest=yes ;;
            --dry-run) dry_run=yes ;;
            --yes) yes=yes ;;
            --watch) watch=yes ;;
            --queued|--spot) flags+=("${flag#--}" yes) ;;
            --worker=all|--worker=[0-9]*) worker="$value" ;;
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
    [[ "$name" =~ ^[a-z][a-z0-9-]*$ ]] || die "--name=$name must be small letters, digits and hyphens"
    folder=".launch/$name"
}

# What gcloud said, as one line with what to do about it. The first pattern that fits wins.
explain() {
    local said
    said="$(grep -E 'ERROR|error:|Permission denied|refused|timed out' "$errors" | head -n 1 || true)"
    [ -n "$said" ] || said="$(tail -n 1 "$errors")"
    case "$(<"$errors")" in
        *"no more capacity"*|*"nsufficient"*"capacity"*|*"RESOURCE_POOL_EXHAUSTED"*)
            die "no free $type in $zone now; wait in line with --queued, try --spot, or another --zone ($said)" 1 ;;
        *[Qq]uota*|*"RESOURCE_EXHAUSTED"*)
            die "no quota for ${type:-this TPU} in $zone (spot has its own); ask for it under IAM & Admin > Quotas, or use another --zone ($said)" 1 ;;
        *"denied on 'locations/"*|*"nvalid zone"*|*"nknown zone"*|*"ocation $zone is not found"*|*"ocations/$zone was not found"*)
            die "no zone $zone with TPUs for this project; list them with: gcloud compute tpus locations list ($said)" 1 ;;
        *"ccelerator"*"not found"*|*"nvalid"*"ccelerator"*|*"ccelerator"*"nvalid"*)
            die "no type $type in $zone; list them with: gcloud compute tpus accelerator-types list --zone=$zone ($said)" 1 ;;
        *"untime"*"not found"*|*"nvalid"*"untime"*)
            die "no system version $version; list them with: gcloud compute tpus versions list --zone=$zone ($said)" 1 ;;
        *"auth login"*|*"UNAUTHENTICATED"*|*"eauthentication"*)
            die "gcloud is not logged in; run: gcloud auth login ($said)" 1 ;;
        *"SERVICE_DISABLED"*|*"has not been used in project"*)
            die "the TPU API is off; run: gcloud services enable tpu.googleapis.com ($said)" 1 ;;
        *"ALREADY_EXISTS"*|*"already exists"*)
            die "there is a TPU $name in $zone already; go on with: $0 resume, or choose another --name" 1 ;;
        *"publickey"*|*"onnection refused"*|*"timed out"*|*"onnection closed"*|*"exit code 255"*|*"status code [255]"*)
            die "ssh to $name was refused; right after create wait a minute, then look at: gcloud compute config-ssh, and whether the firewall lets port 22 in ($said)" 1 ;;
        *"NOT_FOUND"*|*"was not found"*)
            die "no TPU $name in $zone; make it with: $0 create" 1 ;;
        *"PERMISSION_DENIED"*)
            die "your account may not do that; it needs the role roles/tpu.admin ($said)" 1 ;;
        *) die "gcloud failed: $said" 1 ;;
    esac
}

# tpu KIND ACTION …: a gcloud command on this TPU. What it says on failure becomes one line.
tpu() {
    local command=(gcloud compute tpus "$1" "$2" "$name" "--zone=$zone" ${project:+"--project=$project"} "${@:3}")
    run "${command[@]}" 2>"$errors" || explain
}

# On workers ($1: a number or all), a shell command. What it prints, errors too, is seen as it comes.
on_workers() {
    local command=(gcloud compute tpus tpu-vm ssh "$name" "--zone=$zone" ${project:+"--project=$project"} "--worker=$1"
                   "--command=$2")
    run "${command[@]}" 2> >(tee "$errors" >&2) || { wait $! 2>/dev/null || true; explain; }
}

# READY, CREATING, PREEMPTED …, or NONE; of a queued request that has no TPU yet, its own state.
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
    echo "Asking for $name, a $type in $zone${queued:+, queued}${spot:+, spot}"
    if [ -n "$queued" ]; then
        tpu queued-resources create "--node-id=$name" "--accelerator-type=$type" "--runtime-version=$version" ${spot:+--spot}
    else
        tpu tpu-vm create "--accelerator-type=$type" "--version=$version" ${spot:+--spot}
    fi
    [ -n "$dry_run" ] || wait_until_ready
}

wait_until_ready() {
    local now before=""
    while now="$(state)" && [ "$now" != READY ]; do
        case "$now" in FAILED|SUSPENDED) die "the request for $name is $now; remove it with: $0 delete, then create again" 1 ;; esac
        [ "$now" = "$before" ] || echo "$name is $now; waiting (Ctrl-C is safe, the request stays)"
        before="$now"
        sleep "$pause"
    done
    [ "$now" = READY ] || exit 1
    echo "$name is READY"
}

setup() {
    local package=".launch/cbalign.tgz"
    mkdir -p .launch
    run tar --exclude=__pycache__ -czf "$package" cbalign configs launch setup.py constraints.txt README.md
    run gcloud compute tpus tpu-vm scp "$package" "$name:cbalign.tgz" "--zone=$zone" ${project:+"--project=$project"} \
        --worker=all 2>"$errors" || explain
    # The TPU's Ubuntu has Python 3.10; uv brings a newer one where it has to.
    # shellcheck disable=SC2016  # for the shell over there to expand
    on_workers all 'set -e; mkdir -p cbalign; tar -xzf cbalign.tgz -C cbalign; cd cbalign
if ! python3 -c "import sys; sys.exit(sys.version_info < (3, 11))"; then
    python3 -m pip install --quiet --user uv; PATH="$HOME/.local/bin:$PATH"
    uv python install --quiet 3.11; PYTHON="$(uv python find 3.11)"; export PYTHON
fi
source launch/setup.sh; setup emoji,tpu'
    [ -n "$dry_run" ] || echo "installed on all workers of $name"
}

train() { as_train; begin; }

# The arguments of a training run, from flags and settings.
as_train() {
    need config workdir
    [ -f "$config" ] || die "no config file $config"
    case "$workdir" in
        gs://*|/*) ;;
        *) die "--workdir=$workdir would lie on each worker's own disk; name a gs://BUCKET/FOLDER, or a shared folder from /" ;;
    esac
    arguments=(train "--config=$config" "--workdir=$workdir" ${data:+"--config.data.dir=$data"}
               ${overrides[@]+"${overrides[@]}"})
}

run_command() {
    [ "${#arguments[@]}" -gt 0 ] || die "run what? Give the arguments of cbalign behind --, as in: $0 run -- evaluate --workdir=gs://…"
    begin
}

# On all workers, cbalign with these arguments.
begin() {
    local command=(env "JAX_PLATFORMS=tpu,cpu" ${data:+"TFDS_DATA_DIR=$data"} .venv/bin/cbalign "${arguments[@]}")
    if [ -z "$dry_run" ]; then
        # What resume starts on a new TPU.
        mkdir -p "$folder"
        printf '%s\0' "data=$data" "${arguments[@]}" >"$folder/started"
    fi
    on_workers all "cd cbalign && ./launch/supervise.sh start $folder $(quoted "${command[@]}")"
    [ -n "$dry_run" ] || echo "running; follow it with: $0 logs, and keep it alive with: $0 resume --watch"
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

remove() {
    if [ -n "$queued" ]; then
        tpu queued-resources delete --force --quiet
    else
        tpu tpu-vm delete --quiet
    fi
}

delete() {
    sure "Delete $name in $zone with its disks (what lies in the bucket stays)?"
    remove
    [ -n "$dry_run" ] || echo "$name is deleted"
}

remembered() {
    local items=()
    [ "${#arguments[@]}" -eq 0 ] || return 0
    if [ ! -f "$folder/started" ]; then
        [ -n "$workdir" ] || die "nothing was started on $name from here yet; use: $0 train"
        as_train
        return
    fi
    mapfile -d '' -t items <"$folder/started"
    data="${items[0]#data=}" arguments=("${items[@]:1}")
}

# Puts right what is missing.
repair() {
    local now=PREEMPTED
    [ -n "$dry_run" ] || now="$(state)" || exit 1
    case "$now" in
        READY) ;;
        CREATING|STARTING|RESTARTING|REPAIRING|ACCEPTED|PROVISIONING|WAITING_FOR_RESOURCES|ACTIVE) wait_until_ready; setup ;;
        STOPPED) tpu tpu-vm start; wait_until_ready ;;
        NONE) create; setup ;;
        *) echo "$name is $now; making it anew"; remove; create; setup ;;
    esac
    begin
}

resume() {
    local failed=0 told
    remembered
    repair
    while [ -n "$watch" ] && [ -z "$dry_run" ]; do
        sleep "$pause"
        # In a subshell: what cannot be put right now is tried again later, ten times in a row at most.
        if told="$(status 2>&1)" && [[ "$told" == *": READY"* ]]; then
            failed=0
            if [ -n "$(grep -E ': (failed|given up)' <<<"$told" || true)" ]; then die "the run failed: $(grep -m1 -E ': (failed|given up)' <<<"$told")" 1; fi
            if ! grep -qvE 'READY|: done' <<<"$told"; then echo "the run is done"; break; fi
            grep -qE 'gone without|never started' <<<"$told" || continue
        fi
        (repair) || failed=$((failed + 1))
        [ "$failed" -lt 10 ] || die "could not be put right ten times in a row; look with: $0 status" 1
    done
}

action="${1:-}"
case "$action" in
    create|setup|train|status|logs|stop|resume|delete) shift ;;
    run) action=run_command; shift ;;
    -h|--help) usage; exit 0 ;;
    *) die "unknown action '$action'; one of create, setup, train, run, status, logs, stop, resume, delete (see $0 --help)" ;;
esac
parse "$@"
errors="$(mktemp)"
trap 'rm -f "$errors"' EXIT
[ -n "$dry_run" ] || command -v gcloud >/dev/null || die "no gcloud here; install it: https://cloud.google.com/sdk/docs/install"
"$action"
