"""The command line: `asyncsvc`, or `python -m asyncsvc.cli`. It needs the extra `cli`.

Each module of `commands` contains the commands of one subject; `app` registers them all. The
commands use the library as an application does, and the library does not import this package.
"""

from __future__ import annotations

import sys

__all__ = ["main"]

_EXTRA = {"typer", "rich", "plotext"}


def main() -> None:
    """Run the command line and exit with its code. `asyncsvc --help` describes the codes."""
    try:
        from asyncsvc.cli.app import run  # noqa: PLC0415 - the extra may be missing

        sys.exit(run())
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in _EXTRA:
            raise
        sys.exit("asyncsvc: the command line needs an extra: pip install 'asyncsvc[cli]'")
    except KeyboardInterrupt:  # before a command started, or while it ended
        sys.exit(130)
