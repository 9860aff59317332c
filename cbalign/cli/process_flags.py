"""Flags of the commands that may run as several processes."""


def add_arguments(parser) -> None:
    """Adds the three flags that tell processes apart where the environment does not."""
    group = parser.add_argument_group("several processes, where neither a TPU pod, SLURM nor MPI says which is which")
    group.add_argument("--coordinator", default="", metavar="HOST:PORT", help="address of process 0, a free port of it")
    group.add_argument("--num-processes", type=int, metavar="N", help="how many there are")
    group.add_argument("--process-id", type=int, metavar="I", help="which this one is, 0 to N - 1")


def joined(args, *, agree_to_stop: bool = False):
    """The block in which the processes are together; see `cbalign.distributed.processes.joined`."""
    from cbalign.distributed import processes

    return processes.joined(coordinator=args.coordinator, num_processes=args.num_processes, process_id=args.process_id,
                            agree_to_stop=agree_to_stop)
