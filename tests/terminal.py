"""Runs a program in a terminal of its own, and reads the screen as a person sees it."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyte

_ROWS = 50
_SEEN = 2_000  # rows of the screen that is read: as if somebody had scrolled back
_SECONDS = 60


@dataclass(frozen=True)
class Shown:
    """What a program wrote, what became of it on the screen, and its exit code."""

    written: str
    screen: str
    code: int

    @property
    def lines(self) -> list[str]:
        return self.screen.split("\n")


def in_terminal(
    command: Sequence[object], env: Mapping[str, str], columns: int, typed: str = ""
) -> Shown:
    """Run a program in a terminal of this width, type into it, and wait for its end."""
    import fcntl
    import pty
    import struct
    import termios

    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, columns, 0, 0))
    with subprocess.Popen(
        list(map(str, command)),
        stdin=its, stdout=its, stderr=its, env={**env, "TERM": "xterm-256color"},
    ) as process:  # fmt: skip
        os.close(its)
        written = b""
        try:
            while block := os.read(ours, 65536):
                written += block
                if typed:  # it asks
                    os.write(ours, typed.encode())
                    typed = ""
        except OSError:  # Linux: the other side is closed
            pass
        code = process.wait(timeout=_SECONDS)
    os.close(ours)
    return Shown(written.decode(), rendered(written, columns), code)


def rendered(written: bytes, columns: int) -> str:
    """Return the screen after this was written, without the empty end of it."""
    screen = pyte.Screen(columns, _SEEN)
    stream = pyte.ByteStream(screen)
    stream.feed(written)
    return "\n".join(line.rstrip() for line in screen.display).rstrip()
