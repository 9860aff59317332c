"""Files of models on the Hugging Face hub, from the local cache or downloaded."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

from cbalign.errors import UserError

_TIMEOUT_SECONDS = 5


def is_hub_name(name: str) -> bool:
    """Whether a name could be a model on the hub, such as "bert-base-uncased" or "OWNER/MODEL", rather than a path."""
    return bool(name) and not os.path.isabs(name) and not name.startswith(".") and name.count("/") <= 1


def fetch(name: str, patterns: Sequence[str], *, instead_of: tuple[tuple[str, str], ...] = ()) -> pathlib.Path:
    """Returns a local folder with some files of a model.

    Args:
      name: name of the model.
      patterns: names or globs of the files. A cached copy is used as it is if it has the first one, which is a name.
      instead_of: pairs (file, other): `other` is not downloaded if the model has `file`.

    Returns:
      A folder in the local cache. Files that the model does not have are missing there.

    Raises:
      UserError: there is no such model, or the hub cannot be reached. The message does not suggest a remedy, which
        depends on the caller.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    patterns = list(patterns)
    try:
        cached = pathlib.Path(huggingface_hub.snapshot_download(name, allow_patterns=patterns, local_files_only=True))
        if (cached / patterns[0]).is_file():
            return cached
    except HFValidationError as error:
        raise UserError("it is not a valid name on the hub") from error
    except OSError:
        pass
    try:
        # One short request first: a download retries for minutes on a machine without a network.
        info = huggingface_hub.HfApi().model_info(name, timeout=_TIMEOUT_SECONDS)
        files = [file.rfilename for file in info.siblings or ()]
        skipped = {other for file, other in instead_of if file in files}
        wanted = [pattern for pattern in patterns if pattern not in skipped]
        return pathlib.Path(huggingface_hub.snapshot_download(name, allow_patterns=wanted))
    except Exception as error:  # The client also raises exceptions of its HTTP library.
        if isinstance(error, HfHubHTTPError):
            raise UserError(f"the hub has no model {name!r} for you") from error
        raise UserError(f"the hub cannot be reached ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")[:120]
