"""The command line: `asyncsvc`, or `python -m asyncsvc.cli`. It needs the extra `cli`.

Each command is a module of its own that calls the library as any application does; `app` puts them
together. Nothing in here is imported by the library.
"""

from __future__ import annotations

import sys

__all__ = ["main"]

_EXTRA = {"typer", "rich", "plotext", "ijson"}


def main() -> None:
    """Run the command line and leave with its exit code.

    0 is success, 1 an error with one line about it on stderr, 2 a wrong use of the command, 130
    Ctrl-C.
    """
    try:
        from asyncsvc.cli.app import app  # noqa: PLC0415 - the extra may be missing

        app()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in _EXTRA:
            raise
        sys.exit("asyncsvc: the command line needs an extra: pip install 'asyncsvc[cli]'")
    except KeyboardInterrupt:  # before a command began, or while it was ending
        sys.exit(130)
