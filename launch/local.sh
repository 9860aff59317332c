#!/usr/bin/env bash
# Installs cbalign and runs the main job on this machine: trains a small CODIS on real emoji images from the weights that
# come with the package, evaluates it on a vendor and on concepts it has never seen, writes a report, and searches images
# for five texts. Re-running resumes training; a finished run only rebuilds the report and searches.
#
#   ./launch/local.sh                                    on the CPU
#   ./launch/local.sh --device=cuda                      on NVIDIA GPUs (tpu: on a TPU VM)
#   ./launch/local.sh --config=scenes                    another config; --workdir=DIR another folder
#   ./launch/local.sh --config.train.steps=200           overrides any field of the config
#   ./launch/local.sh --data=icons                       builds the data set icons into data/ (needs npm); trains nothing
set -euo pipefail

device=cpu config=emoji workdir="" data="" overrides=()
for argument in "$@"; do
    case "$argument" in
        --device=cpu|--device=cuda|--device=tpu) device="${argument#*=}" ;;
        --config=*) config="${argument#*=}" ;;
        --workdir=*) workdir="${argument#*=}" ;;
        --data=icons) data=icons ;;
        --config.*=*) overrides+=("$argument") ;;
        -h|--help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) echo "unknown argument $argument; see $0 --help" >&2; exit 2 ;;
    esac
done

# shellcheck source=launch/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
extras=train,emoji,report
if [ -n "$data" ]; then
    # shellcheck source=launch/icons.sh
    source launch/icons.sh
    setup "$extras,icons"
    build_icons
    exit
fi
if [ "$device" = cpu ]; then setup "$extras"; else setup "$extras,$device"; fi
# Naming the platform makes a GPU build without a working driver an error rather than a slow run on the CPU.
case "$device" in
    cpu) export JAX_PLATFORMS=cpu ;;
    *) export JAX_PLATFORMS="$device,cpu" ;;
esac

# configs/emoji.py and emoji train in runs/emoji, paper/ablation:sinkhorn in runs/ablation_sinkhorn.
name="$(basename "$config")"
name="${name%.py}"
name="${name//:/_}"
workdir="${workdir:-runs/$name}"
cbalign train --config="$config" --workdir="$workdir" ${overrides[@]+"${overrides[@]}"}
case "$name" in
    emoji*) splits=(--split=test_vendor --split=test_concept) ;;
    icons*) splits=(--split=test_style_mono --split=test_style_color --split=test_concept) ;;
    *) splits=(--split=test) ;;
esac
cbalign evaluate --workdir="$workdir" "${splits[@]}"
cbalign report --workdir="$workdir"
case "$name" in
    emoji*|icons*)
        cbalign search --workdir="$workdir" --sheet="$workdir/found.png" --top=5 \
            "a penguin" "an elephant" "a red car" "a slice of pizza" "a guitar"
        echo "Now open $workdir/report.html and $workdir/found.png; cbalign in .venv/bin searches, explains and classifies:"
        echo "  .venv/bin/pip install -e '.[demo]' && .venv/bin/cbalign demo --workdir=$workdir"
        ;;
esac
