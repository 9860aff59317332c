"""Whether this process is one of several, from flags or from what its launcher left in the environment.

JAX can tell where it runs; what it does not tell is that it runs alone. A TPU host that is no part of a pod, a SLURM
step of one task and a plain shell shall not start `jax.distributed`, nor wait for anybody.
"""

import importlib.util
import pathlib
import urllib.error
import urllib.request
from collections.abc import Mapping

from cbalign.errors import UserError

_METADATA = "computeMetadata/v1/instance/attributes/worker-network-endpoints"


def how_to_join(environment: Mapping[str, str], *, coordinator: str = "", num_processes: int | None = None,
                process_id: int | None = None) -> dict | None:
    """Arguments for `jax.distributed.initialize`, or None for a process alone.

    In this order: flags; a SLURM step of several tasks; Open MPI or a launcher of the MPICH family with several ranks;
    a TPU pod with several workers. With SLURM and MPI each process takes the one GPU of its local rank, as JAX has it.

    Args:
      environment: `os.environ`.
      coordinator, num_processes, process_id: the flags; MPI's ranks fill in for the last two.

    Raises:
      UserError: flags that are incomplete or contradict each other; an MPI that does not tell the coordinator.
    """
    coordinator = coordinator or environment.get("JAX_COORDINATOR_ADDRESS", "")
    ranks = _ranks(environment)
    given = [x for x in (num_processes, process_id) if x is not None]
    if given or (coordinator and not ranks):
        return _from_flags(coordinator, num_processes, process_id)
    if ranks and int(ranks["count"]) > 1:
        return _from_ranks(coordinator, ranks)
    if not ranks and _tpu_workers(environment) > 1:
        return {}
    return None


def _from_flags(coordinator, num_processes, process_id) -> dict | None:
    if num_processes == 1 and process_id in (None, 0):
        return None
    if not coordinator or num_processes is None or process_id is None:
        raise UserError("processes are told apart by three flags together: --coordinator=HOST:PORT --num-processes=N "
                        "--process-id=I")
    _check_address(coordinator)
    if not 0 <= process_id < num_processes:
        raise UserError(f"--process-id={process_id} is not one of 0 to {num_processes - 1} (--num-processes="
                        f"{num_processes})")
    return dict(coordinator_address=coordinator, num_processes=num_processes, process_id=process_id,
                cluster_detection_method="deactivate")


def _check_address(coordinator) -> None:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"--coordinator={coordinator} is not HOST:PORT, such as 10.0.0.1:8476")


def _ranks(environment) -> dict | None:
    """{"kind", "count", "index", "local"} as the launcher of a SLURM step or of MPI says."""
    if "SLURM_STEP_NODELIST" in environment and "SLURM_PROCID" in environment:
        # SLURM_NTASKS is the job's; the step may be a smaller one.
        count = environment.get("SLURM_STEP_NUM_TASKS") or environment.get("SLURM_NTASKS", "1")
        return dict(kind="slurm", count=count, index=environment["SLURM_PROCID"],
                    local=environment.get("SLURM_LOCALID", "0"))
    if "OMPI_COMM_WORLD_SIZE" in environment:
        kind = "ompi" if "OMPI_MCA_orte_hnp_uri" in environment else "mpi"
        return dict(kind=kind, count=environment["OMPI_COMM_WORLD_SIZE"], index=environment["OMPI_COMM_WORLD_RANK"],
                    local=environment.get("OMPI_COMM_WORLD_LOCAL_RANK", "0"))
    if "PMI_SIZE" in environment:
        return dict(kind="mpi", count=environment["PMI_SIZE"], index=environment["PMI_RANK"],
                    local=environment.get("MPI_LOCALRANKID", "0"))
    return None


def _from_ranks(coordinator, ranks) -> dict:
    numbers = dict(num_processes=int(ranks["count"]), process_id=int(ranks["index"]))
    if coordinator:
        _check_address(coordinator)
        return dict(coordinator_address=coordinator, local_device_ids=[int(ranks["local"])], **numbers,
                    cluster_detection_method="deactivate")
    if ranks["kind"] == "mpi":
        raise UserError(f"this MPI ({ranks['count']} ranks) does not say where rank 0 is; add "
                        "--coordinator=HOST_OF_RANK_0:8476")
    return dict(**numbers, cluster_detection_method=ranks["kind"])


def _tpu_workers(environment) -> int:
    """Hosts of the TPU slice (or slices) this one belongs to; 0 where there is no TPU or JAX is told not to use it."""
    if not on_tpu_host() or "tpu" not in (environment.get("JAX_PLATFORMS") or "tpu"):
        return 0
    if int(environment.get("MEGASCALE_NUM_SLICES") or 1) > 1:
        return 2  # or more; which, JAX finds out
    names = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES")
    if names is None and "TPU_SKIP_MDS_QUERY" not in environment:
        names = _metadata(environment.get("GCE_METADATA_IP", "metadata.google.internal"))
    return len([name for name in (names or "").split(",") if name])


def on_tpu_host() -> bool:
    """Whether this machine has TPU chips and the library that drives them."""
    chips = pathlib.Path("/dev/accel0").exists() or pathlib.Path("/dev/vfio/0").exists()
    return chips and importlib.util.find_spec("libtpu") is not None


def _metadata(server: str) -> str:
    """The workers of this Compute Engine TPU, comma-separated; "" where no metadata server answers."""
    request = urllib.request.Request(f"http://{server}/{_METADATA}", headers={"Metadata-Flavor": "Google"})
    # Never through a proxy: the server is the host's own.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as answer:
            return answer.read().decode()
    except (urllib.error.URLError, OSError):
        return ""
