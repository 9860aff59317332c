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
#   --weights=DIR,DIR        what the pretrainings start from, as ALBEF's do from DeiT and BERT: folders that
#                            cbalign convert wrote; from scratch by default
#   --device=cpu|cuda|tpu    of this machine, for the installation (cpu by default)
#
# Data sets are read from TFDS_DATA_DIR; with --tpu, from DATA in tpu.env.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/common.sh
source launch/common.sh

runs=runs/suite_paper device=cpu tpu="" settings="" suite=()
for argument in "$@"; do
    case "$argument" in
        --dry-run) dry_run=yes ;;
        --tpu) tpu=yes ;;
        --runs=?*) runs="${argument#*=}" ;;
        --only=?*|--weights=?*) suite+=("$argument") ;;
        --settings=?*) settings="$argument" ;;
        --device=cpu|--device=cuda|--device=tpu) device="${argument#*=}" ;;
        -h|--help) usage; exit 0 ;;
        *) die "unknown argument $argument; see $0 --help" ;;
    esac
done
if [ -n "$tpu" ] && [[ "$runs" != gs://* && "$runs" != /* ]]; then
    die "--runs=$runs would lie on each worker's own disk; name a gs://BUCKET/FOLDER, or a shared folder from /"
fi

# Installs cbalign unless it is installed (as in tests).
if [ ! -x .venv/bin/cbalign ]; then
    # shellcheck source=launch/setup.sh
    source launch/setup.sh
    if [ "$device" = cpu ]; then setup train,report; else setup "train,report,$device"; fi
fi
suite=(.venv/bin/cbalign suite --suite=paper "--runs=$runs" ${suite[@]+"${suite[@]}"})

if [ -n "$dry_run" ]; then exec "${suite[@]}" --dry-run; fi
if [ -z "$tpu" ]; then exec "${suite[@]}"; fi

before=""
while next="$("${suite[@]}" --next)"; do
    [ -n "$next" ] || { echo "all rows are done; see them with: cbalign tables --suite=paper --runs=$runs"; exit 0; }
    [ "$next" != "$before" ] || die "this ended without leaving its result in $runs: cbalign $(paste -sd' ' <<<"$next"); look with: ./launch/tpu.sh logs" 1
    before="$next"
    mapfile -t arguments <<<"$next"
    echo "cbalign ${arguments[*]}"
    ./launch/tpu.sh resume --watch ${settings:+"$settings"} -- "${arguments[@]}"
done
exit 2  # the suite has printed why
