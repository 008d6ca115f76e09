"""Keep temporary files in memory.

Each database has hundreds of files. A copy of the template takes 10 times as long on a disk, and
the start of a new server twice as long.
"""

import os
import pathlib
import shutil
import tempfile

_MEMORY = pathlib.Path("/dev/shm")  # a file system in memory, on Linux
_MIN_FREE_BYTES = 6 * 2**30  # several times what a whole run needs


def use_memory() -> pathlib.Path | None:
    """Create a directory in memory, and use it for all temporary files from now on.

    Returns None, and changes nothing, if TMPDIR names another one or too little is free.
    """
    if "TMPDIR" in os.environ or not _has_space():
        return None
    directory = pathlib.Path(tempfile.mkdtemp(prefix="asyncsvc-tests-", dir=_MEMORY))
    directory.chmod(0o1777)  # like /tmp: servers run as another user if root starts them
    os.environ["TMPDIR"] = str(directory)
    tempfile.tempdir = None
    return directory


def _has_space() -> bool:
    try:
        lines = pathlib.Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        (available,) = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
        free = min(shutil.disk_usage(_MEMORY).free, int(available) * 2**10)
    except (OSError, ValueError):
        return False
    return free > _MIN_FREE_BYTES and os.access(_MEMORY, os.W_OK)
