"""A bucket that is not there: epath's backend of gs:// over a local folder."""

import os

from etils.epath import backend, gpath


class _Bucket(backend.Backend):
    """Paths of gs:// are taken for paths below `root`; everything else is the local backend's."""

    def __init__(self, root):
        self.root, self.names = str(root), []

    def local(self, path) -> str:
        """Where the local backend finds a path; who asks for one of this machine's own paths made a mistake."""
        path = os.fspath(path)
        assert path.startswith("gs://"), path
        self.names.append(path)
        return os.path.join(self.root, path.removeprefix("gs://"))

    def remote(self, path) -> str:
        """The other way round."""
        return "gs://" + os.path.relpath(path, self.root)


def _forward(name):
    def call(self, *paths, **options):
        here = [self.local(p) if str(p).startswith("gs://") else p for p in paths]
        found = getattr(backend.os_backend, name)(*here, **options)
        return [self.remote(p) for p in found] if name == "glob" else found

    return call


for _name in backend.Backend.__abstractmethods__ - {"walk"}:
    setattr(_Bucket, _name, _forward(_name))


def _walk(self, top, **options):
    for folder, folders, files in backend.os_backend.walk(self.local(top), **options):
        yield self.remote(folder), folders, files


_Bucket.walk = _walk
_Bucket.__abstractmethods__ = frozenset()


def make_bucket(root, monkeypatch) -> _Bucket:
    """From here on gs:// is a folder of this machine, for whatever goes through epath."""
    bucket, real = _Bucket(root), gpath._GPath._backend.fget
    monkeypatch.setattr(
        gpath._GPath, "_backend", property(lambda path: bucket if path._uri_scheme == "gs" else real(path))
    )
    return bucket
