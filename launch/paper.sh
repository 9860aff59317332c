#!/usr/bin/env bash
# Runs what the suite of the paper is missing, one command after the other: pretraining before what starts from it, COCO
# before zero-shot Flickr30K. Started again after an interruption, it resumes where it stopped.
#
#   ./launch/paper.sh --dry-run                         prints every command that is left, in order; runs nothing
#   ./launch/paper.sh [--runs=DIR] [--only=ROW …]       on this machine; DIR is runs/suite_paper by default, ROW a row of
#                                                       the suite, with the rows it starts from; all rows by default
#   ./launch/paper.sh --tpu --runs=gs://BUCKET/paper    on the TPU that tpu.env (or --settings=FILE) names, see tpu.sh: it
#                                                       is created if needed, again after a preemption, and stays, at a
#                                                       cost, until ./launch/tpu.sh delete
#   ./launch/paper.sh --rehearse [--tpu --runs=gs://BUCKET/rehearsal] [--device=cuda] [--only=ROW …]
#                                                       before anyone pays: the whole suite in miniature, for real, with
#                                                       data sets and checkpoints of its own, ended by SIGTERM and by
#                                                       kill -9 on the way; then every cell of the tables is compared
#                                                       with the file it comes from. About 10 minutes on 2 cores.
#                                                       --runs is its folder, runs/rehearsal by default
#   ./launch/paper.sh --rehearse=full [--device=cuda]   the same, and pretraining at full size for two steps on this
#                                                       machine: memory and time
#   --weights=DIR,DIR        what the pretrainings start from, as ALBEF's do from DeiT and BERT: folders that
#                            cbalign convert wrote; from scratch by default
#   --device=cpu|cuda|tpu    of this machine, for the installation (cpu by default)
#
# Data sets are read from TFDS_DATA_DIR; with --tpu, from DATA in tpu.env.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/common.sh
source launch/common.sh

runs="" device=cpu tpu="" settings="" rehearse="" weights="" suite=()
for argument in "$@"; do
    case "$argument" in
        --dry-run) dry_run=yes ;;
        --tpu) tpu=yes ;;
        --rehearse) rehearse="${rehearse:-yes}" ;;
        --rehearse=full) rehearse=full ;;
        --runs=?*) runs="${argument#*=}" ;;
        --weights=?*) weights="$argument" ;;
        --only=?*) suite+=("$argument") ;;
        --settings=?*) settings="$argument" ;;
        --device=cpu|--device=cuda|--device=tpu) device="${argument#*=}" ;;
        -h|--help) usage; exit 0 ;;
        *) die "unknown argument $argument; see $0 --help" ;;
    esac
done
if [ -n "$rehearse" ]; then
    [ -z "$weights" ] || die "$weights is not for a rehearsal, which converts checkpoints of its own"
    [ -z "$tpu" ] || [ "$rehearse" != full ] || die "--rehearse=full is for this machine; on a TPU use cbalign plan"
fi
folder=runs/rehearsal  # of a rehearsal, on this machine
[ -n "$runs" ] || { if [ -n "$rehearse" ]; then runs="$folder"; else runs=runs/suite_paper; fi; }
if [ -n "$tpu" ] && [[ "$runs" != gs://* && "$runs" != /* ]]; then
    die "--runs=$runs would lie on each worker's own disk; name a gs://BUCKET/FOLDER, or a shared folder from /"
fi

# Installs cbalign unless it is installed (as in tests).
if [ ! -x .venv/bin/cbalign ]; then
    # shellcheck source=launch/setup.sh
    source launch/setup.sh
    extras="train,report${rehearse:+,torch}"
    if [ "$device" = cpu ]; then setup "$extras"; else setup "$extras,$device"; fi
fi
only=(${suite[@]+"${suite[@]}"})

# How many devices JAX finds on the TPU that tpu.env or --settings names.
tpu_devices() {
    # shellcheck disable=SC2034  # read_settings sets them
    local name="" zone="" type="" version="" project="" queued="" spot="" config="" workdir="" data="" file
    file="${settings#--settings=}"
    [ -f "${file:=tpu.env}" ] || die "no file $file; it names the TPU, see ./launch/tpu.sh --help"
    read_settings "$file" "name zone type version project queued spot config workdir data"
    [ -n "$type" ] || die "TYPE=… is missing in $file"
    case "$type" in
        v4-*|v5p-*) echo $(("${type##*-}" / 2)) ;;  # the name counts cores, two of which are one device
        *) echo "${type##*-}" ;;
    esac
}

# On this machine: nothing is left to the scripts but the order.
rehearse_here() {
    local devices
    # Most programs here run a few times: what the compiler saves by optimising, it took to do so.
    if [ "$device" = cpu ]; then export XLA_FLAGS="--xla_backend_optimization_level=0 ${XLA_FLAGS:-}"; fi
    devices="$(.venv/bin/cbalign rehearse devices)" || exit
    JAX_PLATFORMS=cpu .venv/bin/cbalign rehearse prepare "--out=$runs" "--devices=$devices" || exit
    .venv/bin/cbalign rehearse play "--out=$runs" "--devices=$devices" ${only[@]+"${only[@]}"} || exit
    if [ "$rehearse" = full ]; then .venv/bin/cbalign rehearse full "--out=$runs" || exit; fi
    JAX_PLATFORMS=cpu exec .venv/bin/cbalign rehearse check "--out=$runs" ${only[@]+"${only[@]}"}
}

if [ -n "$rehearse" ] && [ -z "$tpu" ] && [ -z "$dry_run" ]; then rehearse_here; fi
suite=(.venv/bin/cbalign suite --suite=paper)
if [ -n "$rehearse" ]; then
    if [ -n "$tpu" ]; then devices="$(tpu_devices)" || exit; else devices="$(.venv/bin/cbalign rehearse devices)" || exit; fi
    mapfile -t flags < <(.venv/bin/cbalign rehearse flags "--store=$runs" "--devices=$devices")
    [ "${#flags[@]}" -gt 0 ] || exit 2
    suite+=("${flags[@]}")
else
    suite+=("--runs=$runs" ${weights:+"$weights"})
fi
suite+=(${only[@]+"${only[@]}"})

if [ -n "$dry_run" ]; then exec "${suite[@]}" --dry-run; fi
if [ -z "$tpu" ]; then exec "${suite[@]}"; fi

data=() stops=()
if [ -n "$rehearse" ]; then
    .venv/bin/cbalign rehearse prepare "--out=$folder" "--store=$runs" "--devices=$devices" || exit
    data=("--data=$runs/tfds") stops=(TERM KILL)
fi

# Ends the command that has just been started, once it is about to train; the supervisors start it again.
interrupt() { ./launch/tpu.sh interrupt "--signal=$1" ${settings:+"$settings"}; }

before="" number=0
while next="$("${suite[@]}" --next)"; do
    if [ -z "$next" ]; then
        [ -z "$rehearse" ] ||
            exec .venv/bin/cbalign rehearse check "--out=$folder" "--store=$runs" ${only[@]+"${only[@]}"}
        echo "all rows are done; see them with: cbalign tables --suite=paper --runs=$runs"
        exit 0
    fi
    [ "$next" != "$before" ] || die "this ended without leaving its result in $runs: cbalign $(paste -sd' ' <<<"$next"); look with: ./launch/tpu.sh logs" 1
    before="$next"
    mapfile -t arguments <<<"$next"
    number=$((number + 1)) begun=$SECONDS stopper=""
    echo "cbalign ${arguments[*]}"
    if [ -n "$rehearse" ]; then
        echo "cbalign ${arguments[*]}" >>"$folder/suite.log"
        if [ "${arguments[0]}" = train ] && [ "${#stops[@]}" -gt 0 ]; then
            interrupt "${stops[0]}" &
            stopper=$! stops=("${stops[@]:1}")
        fi
    fi
    ./launch/tpu.sh resume --watch ${settings:+"$settings"} ${data[@]+"${data[@]}"} -- "${arguments[@]}"
    [ -z "$stopper" ] || wait "$stopper" || die "the command could not be interrupted" 1
    [ -z "$rehearse" ] || echo "command $number: $((SECONDS - begun)) s"
done
exit 2  # the suite has printed why
