"""Decides whether this process is one of several, from flags or from the launcher's environment variables.

JAX detects the cluster it runs in, but not that a process runs alone: on a TPU host outside a pod, in a SLURM step with
one task or in a plain shell, `jax.distributed` must not start, nor wait for other processes.
"""

import importlib.util
import pathlib
import urllib.error
import urllib.request
from collections.abc import Mapping

from cbalign.errors import UserError

_METADATA = "computeMetadata/v1/instance/attributes/worker-network-endpoints"


def how_to_join(
    environment: Mapping[str, str],
    *,
    coordinator: str = "",
    num_processes: int | None = None,
    process_id: int | None = None,
) -> dict | None:
    """Arguments for `jax.distributed.initialize`, or None for a single process.

    Checked in this order: flags; a SLURM step with several tasks; Open MPI or an MPICH-family launcher with several
    ranks; a TPU pod with several workers. Under SLURM and MPI each process uses the GPU of its local rank, as in JAX.

    Args:
      environment: `os.environ`.
      coordinator, num_processes, process_id: values of the flags; MPI ranks can replace the last two.

    Raises:
      UserError: the flags are incomplete or inconsistent, or the MPI launcher does not provide a coordinator.
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
        raise UserError("--coordinator=HOST:PORT, --num-processes=N and --process-id=I must be given together")
    _check_address(coordinator)
    if not 0 <= process_id < num_processes:
        raise UserError(
            f"--process-id={process_id} must be between 0 and {num_processes - 1} (--num-processes={num_processes})"
        )
    return dict(
        coordinator_address=coordinator,
        num_processes=num_processes,
        process_id=process_id,
        cluster_detection_method="deactivate",
    )


def _check_address(coordinator) -> None:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"--coordinator={coordinator} is not HOST:PORT, such as 10.0.0.1:8476")


def _ranks(environment) -> dict | None:
    """{"kind", "count", "index", "local"} from the environment of SLURM or MPI; None outside both."""
    if "SLURM_STEP_NODELIST" in environment and "SLURM_PROCID" in environment:
        # SLURM_NTASKS counts the whole job; the step may have fewer tasks.
        count = environment.get("SLURM_STEP_NUM_TASKS") or environment.get("SLURM_NTASKS", "1")
        return dict(
            kind="slurm", count=count, index=environment["SLURM_PROCID"], local=environment.get("SLURM_LOCALID", "0")
        )
    if "OMPI_COMM_WORLD_SIZE" in environment:
        kind = "ompi" if "OMPI_MCA_orte_hnp_uri" in environment else "mpi"
        return dict(
            kind=kind,
            count=environment["OMPI_COMM_WORLD_SIZE"],
            index=environment["OMPI_COMM_WORLD_RANK"],
            local=environment.get("OMPI_COMM_WORLD_LOCAL_RANK", "0"),
        )
    if "PMI_SIZE" in environment:
        return dict(
            kind="mpi",
            count=environment["PMI_SIZE"],
            index=environment["PMI_RANK"],
            local=environment.get("MPI_LOCALRANKID", "0"),
        )
    return None


def _from_ranks(coordinator, ranks) -> dict:
    numbers = dict(num_processes=int(ranks["count"]), process_id=int(ranks["index"]))
    if coordinator:
        _check_address(coordinator)
        return dict(
            coordinator_address=coordinator,
            local_device_ids=[int(ranks["local"])],
            **numbers,
            cluster_detection_method="deactivate",
        )
    if ranks["kind"] == "mpi":
        raise UserError(
            f"this MPI ({ranks['count']} ranks) does not provide the address of rank 0; add "
            "--coordinator=HOST_OF_RANK_0:8476"
        )
    return dict(**numbers, cluster_detection_method=ranks["kind"])


def _tpu_workers(environment) -> int:
    """Number of hosts in this host's TPU slice (or slices); 0 without a TPU or if JAX_PLATFORMS excludes it."""
    if not on_tpu_host() or "tpu" not in (environment.get("JAX_PLATFORMS") or "tpu"):
        return 0
    if int(environment.get("MEGASCALE_NUM_SLICES") or 1) > 1:
        return 2  # at least; JAX determines the number
    names = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES")
    if names is None and "TPU_SKIP_MDS_QUERY" not in environment:
        names = _metadata(environment.get("GCE_METADATA_IP", "metadata.google.internal"))
    return len([name for name in (names or "").split(",") if name])


def on_tpu_host() -> bool:
    """Whether this machine has TPU chips and libtpu is installed."""
    chips = pathlib.Path("/dev/accel0").exists() or pathlib.Path("/dev/vfio/0").exists()
    return chips and importlib.util.find_spec("libtpu") is not None


def _metadata(server: str) -> str:
    """The workers of this Compute Engine TPU, comma-separated; "" if no metadata server answers."""
    request = urllib.request.Request(f"http://{server}/{_METADATA}", headers={"Metadata-Flavor": "Google"})
    # Bypass proxies: the metadata server is local to the host.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as answer:
            return answer.read().decode()
    except (urllib.error.URLError, OSError):
        return ""
