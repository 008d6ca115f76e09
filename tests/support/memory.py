"""Keep temporary files in memory.

Each database has hundreds of files. A copy of the template takes 10 times as long on a disk, and
the start of a new server twice as long.
"""

import os
import pathlib
import shutil
import tempfile
from multiprocessing.util import Finalize

_MEMORY = pathlib.Path("/dev/shm")  # a file system in memory, on Linux
_MIN_FREE_BYTES = 6 * 2**30  # several times what a whole run needs


def use_memory() -> None:
    """Create a directory in memory, and use it for all temporary files until the end.

    Does nothing if TMPDIR names another directory or too little memory is free.
    """
    if "TMPDIR" in os.environ or not _has_space():
        return
    directory = pathlib.Path(tempfile.mkdtemp(prefix="asyncsvc-tests-", dir=_MEMORY))
    directory.chmod(0o1777)  # like /tmp: servers run as another user if root starts them
    os.environ["TMPDIR"] = str(directory)
    tempfile.tempdir = None
    # After multiprocessing has removed its own directory, which has the priority -100.
    Finalize(None, shutil.rmtree, [directory, True], exitpriority=-200)


def _has_space() -> bool:
    try:
        lines = pathlib.Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        (available,) = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
        free = min(shutil.disk_usage(_MEMORY).free, int(available) * 2**10)
    except (OSError, ValueError):
        return False
    return free > _MIN_FREE_BYTES and os.access(_MEMORY, os.W_OK)
