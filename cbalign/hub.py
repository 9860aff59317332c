"""Files of a model on the Hugging Face hub: from the local cache, else downloaded."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

from cbalign.errors import UserError

_TIMEOUT_SECONDS = 5


def is_hub_name(name: str) -> bool:
    """Whether a name could be a model's on the hub, as "bert-base-uncased" or "OWNER/MODEL", rather than a path."""
    return bool(name) and not os.path.isabs(name) and not name.startswith(".") and name.count("/") <= 1


def fetch(name: str, patterns: Sequence[str], *, instead_of: tuple[tuple[str, str], ...] = ()) -> pathlib.Path:
    """The local folder with some files of a model.

    Args:
      name: of the model.
      patterns: names or globs of the files wanted.
      instead_of: (file, other): `other` is not downloaded where the model has `file`.

    Returns:
      A folder in the local cache; whatever the cache holds of the model is enough, otherwise the files are downloaded.

    Raises:
      UserError: no such model, or the hub cannot be reached; the message says which and ends without a remedy, which
        depends on the caller.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    patterns = list(patterns)
    try:
        return pathlib.Path(huggingface_hub.snapshot_download(name, allow_patterns=patterns, local_files_only=True))
    except HFValidationError as error:
        raise UserError("it is not a valid name on the hub") from error
    except OSError:
        pass
    try:
        # One short request first: a download retries for minutes on a machine without a network.
        info = huggingface_hub.HfApi().model_info(name, timeout=_TIMEOUT_SECONDS)
        files = [file.rfilename for file in info.siblings]
        skipped = {other for file, other in instead_of if file in files}
        wanted = [pattern for pattern in patterns if pattern not in skipped]
        return pathlib.Path(huggingface_hub.snapshot_download(name, allow_patterns=wanted))
    except Exception as error:  # The client passes on exceptions of its transport, whatever library that is.
        if isinstance(error, HfHubHTTPError):
            raise UserError(f"the hub has no model {name!r} for you") from error
        raise UserError(f"the hub cannot be reached ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")[:120]
