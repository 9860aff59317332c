"""What a run was made with: version, commit, command and devices, kept in `run.json` of its workdir."""

import contextlib
import datetime
import functools
import pathlib
import subprocess

from etils import epath

import cbalign
from cbalign.errors import DivergedError
from cbalign.storage import read_json, write_json

FILE = "run.json"
# A repository on a slow network disk must not hold up a run.
_GIT_SECONDS = 20


@functools.cache
def commit() -> tuple[str, bool]:
    """The git commit this package is run from, and whether its tracked files differ from it.

    Returns:
      ("", False) where the package does not lie in a repository of its own, as after an installation.
    """
    package = pathlib.Path(cbalign.__file__).parent

    def git(*arguments):
        result = subprocess.run(
            ["git", "-C", str(package), *arguments], capture_output=True, text=True, check=True, timeout=_GIT_SECONDS
        )
        return result.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # an environment inside another project's repository
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return "", False


def read(workdir) -> dict:
    """The content of a workdir's run.json: {"starts": [...], "end": {...} or None}.

    "starts" has one entry a start of the run, oldest first: "time" (ISO 8601, UTC), "command", "version", "commit",
    "modified", "devices", "processes". "end" is {"time", "status", "step", "message"} of the last start, status one of
    finished, interrupted, diverged and failed; None where it is still at work, or was killed.
    """
    content = read_json(epath.Path(workdir) / FILE) or {}
    starts, end = content.get("starts"), content.get("end")
    # A damaged file says less, and stops nothing.
    starts = [start for start in starts if isinstance(start, dict)] if isinstance(starts, list) else []
    return {"starts": starts, "end": end if isinstance(end, dict) else None}


@contextlib.contextmanager
def recorded(workdir, *, command: str, devices: str, processes: int):
    """Adds a start to run.json, and how it ended.

    Args:
      workdir: folder of the run.
      command: that would start it again; "" where it was not started from the command line.
      devices: in words, as in "8 TPU v4".
      processes: of the run.

    Yields:
      A dictionary whose "step" and "interrupted_by" the caller sets when the run stops by itself.
    """
    sha, modified = commit()
    start = {
        "time": _now(),
        "command": command,
        "version": cbalign.__version__,
        "commit": sha,
        "modified": modified,
        "devices": devices,
        "processes": processes,
    }
    content = {"starts": [*read(workdir)["starts"], start], "end": None}
    _write(workdir, content)

    def end(status, *, step=None, message=""):
        _write(workdir, {**content, "end": {"time": _now(), "status": status, "step": step, "message": message}})

    outcome = {"step": None, "interrupted_by": ""}
    try:
        yield outcome
    except DivergedError as error:
        end("diverged", message=str(error))
        raise
    except Exception as error:
        # A folder that was removed must not come back with run.json alone; on a full disk, the first error counts.
        with contextlib.suppress(OSError):
            if (epath.Path(workdir) / FILE).exists():
                end("failed", message=f"{type(error).__name__}: {error}".splitlines()[0])
        raise
    end(
        "interrupted" if outcome["interrupted_by"] else "finished",
        step=outcome["step"],
        message=outcome["interrupted_by"],
    )


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _write(workdir, content: dict) -> None:
    write_json(epath.Path(workdir) / FILE, content)
