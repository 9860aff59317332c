"""Where an array lies, as the operating system says."""

import pathlib


def mapped_file(array) -> str:
    """The file that the first and the last byte of an array are mapped from; "" for memory of its own."""
    found = []
    for address in (array.ctypes.data, array.ctypes.data + array.nbytes - 1):
        for line in pathlib.Path("/proc/self/maps").read_text().splitlines():
            span, *_, name = line.split(maxsplit=5) if len(line.split()) > 5 else (line.split()[0], "")
            start, end = (int(x, 16) for x in span.split("-"))
            if start <= address < end:
                found.append(name if name.startswith("/") else "")
    assert len(found) == 2 and found[0] == found[1]
    return found[0]
