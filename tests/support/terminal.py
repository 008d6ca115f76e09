"""Run a command in a terminal, and read its screen."""

import contextlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pyte

from asyncsvc import cli
from tests.support.forks import SECONDS, start_command, wait_for_command

_ROWS = 50


@dataclass(frozen=True)
class Shown:
    """The output of a command, the final screen of the terminal, and the exit code."""

    written: str
    screen: str
    code: int

    @property
    def lines(self) -> list[str]:
        return self.screen.split("\n")


def in_terminal(
    arguments: Sequence[object],
    env: Mapping[str, str],
    columns: int,
    *,
    answer: str = "",
    secret: str = "",
    main: Callable[[], None] = cli.main,
) -> Shown:
    """Run a command to its end in a terminal of this width.

    The answer is typed after the question, so that the screen shows both in this order. The secret
    is typed while the terminal hides input, because hiding discards earlier input.
    """
    import fcntl
    import pty
    import struct
    import termios

    def is_asked() -> bool:
        return written.endswith(b"]: ")

    def is_hidden() -> bool:
        return not termios.tcgetattr(ours)[3] & termios.ECHO

    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, columns, 0, 0))
    process = start_command(arguments, {**env, "TERM": "xterm-256color"}, [its] * 3, main)
    os.close(its)
    written = b""
    late = threading.Timer(SECONDS, process.kill)
    late.start()
    with contextlib.suppress(OSError):  # Linux, if the other side is closed
        while block := os.read(ours, 65536):
            written += block
            if (answer and is_asked()) or (secret and is_hidden()):
                os.write(ours, (answer or secret).encode())
                answer = secret = ""
    late.cancel()
    code = wait_for_command(process)
    os.close(ours)
    return Shown(written.decode(), rendered(written, columns), code)


def rendered(written: bytes, columns: int) -> str:
    """Return the screen after this output, without empty lines at the end."""
    # More rows than the terminal has: one for each line, also for a line that is wrapped.
    rows = written.count(b"\n") + len(written) // columns + _ROWS
    screen = pyte.Screen(columns, rows)
    stream = pyte.ByteStream(screen)
    stream.feed(written)
    return "\n".join(line.rstrip() for line in screen.display).rstrip()
