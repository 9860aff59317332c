#!/usr/bin/env bash
# Sets everything up and runs the main job on this machine: trains a small CODIS on real emoji images, evaluates it on
# a vendor and on concepts it has never seen, and writes a report. Run again, it resumes, or only reports.
#
#   ./launch/local.sh                                    on the CPU
#   ./launch/local.sh --device=cuda                      on NVIDIA GPUs (tpu: on a TPU VM)
#   ./launch/local.sh --config=configs/scenes.py         another config; --workdir=DIR another folder
#   ./launch/local.sh --config.train.steps=200           any field of the config
set -euo pipefail

device=cpu config=configs/emoji.py workdir="" overrides=()
for argument in "$@"; do
    case "$argument" in
        --device=cpu|--device=cuda|--device=tpu) device="${argument#*=}" ;;
        --config=*) config="${argument#*=}" ;;
        --workdir=*) workdir="${argument#*=}" ;;
        --config.*=*) overrides+=("$argument") ;;
        -h|--help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) echo "unknown argument $argument; see $0 --help" >&2; exit 2 ;;
    esac
done

# shellcheck source=launch/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
if [ "$device" = cpu ]; then setup emoji; else setup "emoji,$device"; fi
# JAX is told what to use, so that a GPU build without a working driver is an error and not a slow surprise.
case "$device" in
    cpu) export JAX_PLATFORMS=cpu ;;
    *) export JAX_PLATFORMS="$device,cpu" ;;
esac

name="$(basename "$config" .py)"
workdir="${workdir:-runs/$name}"
cbalign train --config="$config" --workdir="$workdir" ${overrides[@]+"${overrides[@]}"}
case "$name" in
    emoji*) splits=(--split=test_vendor --split=test_concept) ;;
    *) splits=(--split=test) ;;
esac
cbalign evaluate --workdir="$workdir" "${splits[@]}"
cbalign report --workdir="$workdir"
