"""Flags of the commands that can run as several processes."""


def add_arguments(parser) -> None:
    """Adds the three flags that identify a process where the environment does not."""
    group = parser.add_argument_group("several processes (detected automatically on TPU pods and under SLURM and MPI)")
    group.add_argument(
        "--coordinator", default="", metavar="HOST:PORT", help="address of process 0 and a free port on it"
    )
    group.add_argument("--num-processes", type=int, metavar="N", help="number of processes")
    group.add_argument("--process-id", type=int, metavar="I", help="index of this process, 0 to N - 1")


def joined(args, *, agree_to_stop: bool = False):
    """Joins the processes for the duration of a block; see `cbalign.distributed.processes.joined`."""
    from cbalign.distributed import processes

    return processes.joined(
        coordinator=args.coordinator,
        num_processes=args.num_processes,
        process_id=args.process_id,
        agree_to_stop=agree_to_stop,
    )
