#!/usr/bin/env bash
# Trains on the NVIDIA GPUs of this node or of a SLURM cluster.
#
#   ./launch/gpu.sh setup                    installs this checkout and JAX for CUDA into .venv, versions of constraints.txt
#   ./launch/gpu.sh train --config=emoji --workdir=runs/emoji [--gpus=0,1] [--config.KEY=VALUE …]
#                                            in the background under launch/supervise.sh; on all GPUs by default
#   ./launch/gpu.sh train --slurm --nodes=2 --gpus-per-node=8 --config=… --workdir=/shared/codis [--time=24:00:00]
#                         [--partition=P] [--account=A]    as a job with one process per GPU, requeued after preemption and
#                                            at its time limit until training is done
#   ./launch/gpu.sh status                   the state of the run
#   ./launch/gpu.sh logs                     follows its log
#   ./launch/gpu.sh stop                     saves and stops it
#   ./launch/gpu.sh resume                   starts it again with the same command
#
# --name=NAME distinguishes runs: the last part of the workdir by default; status, logs, stop and resume default to the run
# started last. --dry-run prints every command without running any. Settings can be kept in gpu.env (or --settings=FILE)
# as NAME=VALUE: NAME, CONFIG, WORKDIR, DATA, GPUS, SLURM=yes, NODES, GPUS_PER_NODE, TIME, PARTITION, ACCOUNT. Flags
# override them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
settings_file=gpu.env
# shellcheck source=launch/common.sh
source launch/common.sh

fields="name config workdir data gpus slurm nodes gpus_per_node time partition account"
name="" config="" workdir="" data="" gpus="" slurm="" nodes=1 gpus_per_node="" time="24:00:00" partition="" account=""
settings=""

parse() {
    local argument flag value flags=()
    for argument in "$@"; do
        flag="${argument%%=*}" value="${argument#*=}"
        flag="${flag#--}" flag="${flag//-/_}"
        case "$argument" in
            --dry-run) dry_run=yes ;;
            --slurm) flags+=(slurm yes) ;;
            --settings=*) settings="$value"; [ -f "$settings" ] || die "no file $settings" ;;
            --config.*=*) overrides+=("$argument") ;;
            --*=*) [[ " $fields " == *" $flag "* ]] || die "unknown argument $argument; see $0 --help"
                flags+=("$flag" "$value") ;;
            *) die "unknown argument $argument; see $0 --help" ;;
        esac
    done
    if [ -z "$settings" ] && [ -f "$settings_file" ]; then settings="$settings_file"; fi
    [ -z "$settings" ] || read_settings "$settings" "$fields"
    for ((argument = 0; argument < ${#flags[@]}; argument += 2)); do
        set_field "$fields" "${flags[argument]}" "${flags[argument + 1]}"
    done
    [ -n "$name" ] || name="$(basename "${workdir:-$(cat .launch/last 2>/dev/null || true)}")"
    folder=".launch/$name"
}

# status, logs, stop and resume need a run that was started.
started() {
    [ -e "$folder/command" ] || die "no run ${name:-yet}; start one with: $0 train"
}

setup() {
    local extras=train,emoji,report,cuda
    if [ -n "$dry_run" ]; then
        echo ".venv/bin/python -m pip install -c constraints.txt -e '.[$extras]'"
        return
    fi
    # shellcheck source=launch/setup.sh
    (source launch/setup.sh; setup "$extras")
    .venv/bin/python -c 'import jax; print(f"{len(jax.devices())} GPU(s): {jax.devices()[0].device_kind}")' ||
        die "JAX finds no GPU; run nvidia-smi and check that the driver is recent enough for this JAX" 1
}

train() {
    need config workdir
    need_config "$config"
    [ -n "$dry_run" ] || [ -x .venv/bin/cbalign ] || die "cbalign is not installed here; run: $0 setup" 1
    [[ "$gpus" =~ ^([0-9]+(,[0-9]+)*)?$ ]] || die "--gpus=$gpus must be numbers, as in --gpus=0,1"
    local command=(env "JAX_PLATFORMS=cuda,cpu" ${gpus:+"CUDA_VISIBLE_DEVICES=$gpus"} .venv/bin/cbalign train
                   "--config=$config" "--workdir=$workdir" ${data:+"--config.data.dir=$data"}
                   ${overrides[@]+"${overrides[@]}"})
    if [ -n "$slurm" ]; then
        [ -z "$gpus" ] || die "--gpus is for a single node; with --slurm use --gpus-per-node"
        need gpus_per_node
    fi
    [ -n "$dry_run" ] || { mkdir -p "$folder"; echo "$name" >.launch/last; }
    if [ -z "$slurm" ]; then
        [ -n "$dry_run" ] || rm -f "$folder/job"
        run ./launch/supervise.sh start "$folder" "${command[@]}"
    else
        submit "${command[@]}"
    fi
    [ -n "$dry_run" ] || echo "follow it with: $0 logs"
}

# Prints the job: one process per GPU; they find each other through SLURM. SIGTERM is sent five minutes before the time
# limit. Exit code 75 ("saved, restart me") requeues the job, and so does a process killed by a signal, whose code srun
# returns as the highest of all, unless that came within ten minutes: it would come again.
# shellcheck disable=SC2016  # $code is expanded by the job's shell
job() {
    echo '#!/usr/bin/env bash'
    printf '#SBATCH %s\n' "--job-name=$name" "--nodes=$nodes" "--ntasks-per-node=$gpus_per_node" \
        "--gpus-per-node=$gpus_per_node" "--time=$time" "--signal=TERM@300" --requeue --open-mode=append \
        "--output=$folder/log" ${partition:+"--partition=$partition"} ${account:+"--account=$account"}
    printf '%s\n' "srun --kill-on-bad-exit=0 $(quoted "$@")" 'code=$? again=""' \
        'case "$code" in' '75) again=yes ;;' '130) ;;' \
        '*) [ "$code" -le 128 ] || [ "$SECONDS" -lt "${SUPERVISE_HEALTHY:-600}" ] || again=yes ;;' 'esac' \
        '[ -z "$again" ] || [ -e '"$(quoted "$folder/stopped")"' ] || scontrol requeue "$SLURM_JOB_ID"' 'exit "$code"'
}

submit() {
    if [ -n "$dry_run" ]; then
        echo "sbatch --parsable $folder/job.sh    # with this job.sh:"
        job "$@"
        return
    fi
    command -v sbatch >/dev/null || die "no sbatch here; run this on a SLURM login node, or omit --slurm" 1
    printf '%s\0' "$@" >"$folder/command"
    job "$@" >"$folder/job.sh"
    queue
}

queue() {
    local said
    rm -f "$folder/stopped"
    said="$(sbatch --parsable "$folder/job.sh" 2>"$errors")" || explain
    echo "${said%%;*}" >"$folder/job"
    echo "job ${said%%;*} is in the queue"
}

explain() {
    local said
    said="$(grep -m1 -i error "$errors" || tail -n 1 "$errors")"
    case "$said" in
        *"partition"*) die "SLURM has no partition ${partition:-by default}; list partitions with: sinfo ($said)" 1 ;;
        *"account"*) die "SLURM does not accept account ${account:-(none given)}; name one with --account ($said)" 1 ;;
        *"not available"*) die "no node has that many GPUs; see: sinfo --format='%P %D %G' ($said)" 1 ;;
        *"ime limit"*) die "--time=$time exceeds the limit of the partition; see: sinfo --format='%P %l' ($said)" 1 ;;
        *) die "SLURM failed: $said" 1 ;;
    esac
}

status() {
    started
    if [ ! -e "$folder/job" ]; then run ./launch/supervise.sh status "$folder"; return; fi
    local job query now
    job="$(cat "$folder/job")"
    query=(squeue --noheader "--jobs=$job" "--format=%T %M of %l, %D nodes")
    if [ -n "$dry_run" ]; then run "${query[@]}"; return; fi
    now="$("${query[@]}" 2>"$errors" || true)"
    echo "job $job of $name: ${now:-no longer in the queue} | $(tail -n 1 "$folder/log" 2>/dev/null)"
}

logs() { started; run tail -n 50 -F "$folder/log"; }

stop() {
    started
    if [ ! -e "$folder/job" ]; then run ./launch/supervise.sh stop "$folder"; return; fi
    [ -n "$dry_run" ] || touch "$folder/stopped"
    run scancel --signal=TERM "$(cat "$folder/job")" 2>"$errors" || explain
    [ -n "$dry_run" ] || echo "asked job $(cat "$folder/job") to save and stop"
}

resume() {
    started
    if [ -e "$folder/job" ]; then
        if [ -n "$dry_run" ]; then run sbatch --parsable "$folder/job.sh"; else queue; fi
    else
        run ./launch/supervise.sh again "$folder"
    fi
}

action="${1:-}"
case "$action" in
    setup|train|status|logs|stop|resume) shift ;;
    -h|--help) usage; exit 0 ;;
    *) die "unknown action '$action'; see $0 --help" ;;
esac
parse "$@"
errors="$(mktemp)"
trap 'rm -f "$errors"' EXIT
"$action"
