"""Run a program in a terminal, and read its screen."""

import contextlib
import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyte

_ROWS = 50
_SCREEN_ROWS = 2_000  # rows of the emulated screen, more than the terminal has
_SECONDS = 60


@dataclass(frozen=True)
class Shown:
    """The output of a program, the final screen of the terminal, and the exit code."""

    written: str
    screen: str
    code: int

    @property
    def lines(self) -> list[str]:
        return self.screen.split("\n")


def in_terminal(
    command: Sequence[object],
    env: Mapping[str, str],
    columns: int,
    *,
    answer: str = "",
    secret: str = "",
) -> Shown:
    """Run a program to its end in a terminal of this width.

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
    with subprocess.Popen(
        list(map(str, command)), start_new_session=True,
        stdin=its, stdout=its, stderr=its, env={**env, "TERM": "xterm-256color"},
    ) as process:  # fmt: skip
        os.close(its)
        written = b""
        late = threading.Timer(_SECONDS, process.kill)
        late.start()
        with contextlib.suppress(OSError):  # Linux, if the other side is closed
            while block := os.read(ours, 65536):
                written += block
                if (answer and is_asked()) or (secret and is_hidden()):
                    os.write(ours, (answer or secret).encode())
                    answer = secret = ""
        code = process.wait()
        late.cancel()
    os.close(ours)
    return Shown(written.decode(), rendered(written, columns), code)


def rendered(written: bytes, columns: int) -> str:
    """Return the screen after this output, without empty lines at the end."""
    screen = pyte.Screen(columns, _SCREEN_ROWS)
    stream = pyte.ByteStream(screen)
    stream.feed(written)
    return "\n".join(line.rstrip() for line in screen.display).rstrip()
