"""A connection of PyMySQL for untrusted servers.

A server chooses the method of authentication and the size of its answers. This connection sends the
password in clear text only to a server that TLS verifies, and limits the size of an answer.
"""

from __future__ import annotations

import ssl
from types import ModuleType
from typing import Any, Final

MAX_RESULT_BYTES: Final = 2**27
"""The maximum bytes of one answer: twice the longest conversation that is read."""
_SHA256: Final = "sha256_password"
_REQUEST_FOR_A_KEY: Final = (b"\x01", b"\x02")
"""Ask the server for the public key that encrypts the password: a false server sends its own."""
_LOST: Final = 2013
_AUTHENTICATION_ERROR: Final = 2061
_CLEAR_TEXT: Final = (
    "the server asks for the password in clear text: use ssl-mode=verify_identity, or"
    " Settings.allow_clear_text_password"
)


def guarded_connection_class(driver: ModuleType) -> type[Any]:
    """Return the class of connections of PyMySQL with guards against false servers."""

    class GuardedConnection(driver.connections.Connection):  # type: ignore[misc, name-defined]
        allows_clear_text = False
        _is_logged_in = False
        _received = 0

        def start_answer(self) -> None:
            """Count the bytes of a new answer."""
            self._received = 0

        def _request_authentication(self) -> None:
            if self._auth_plugin_name == _SHA256 and self.password:
                self._check_clear_text()  # the driver may answer at once
            super()._request_authentication()
            self._is_logged_in = True

        def write_packet(self, payload: bytes) -> None:
            secrets = (self.password + b"\0", *_REQUEST_FOR_A_KEY)
            if self.password and payload in secrets and not self._is_logged_in:
                self._check_clear_text()
            super().write_packet(payload)

        def _check_clear_text(self) -> None:
            is_verified = self._secure and self.ssl and self.ctx.verify_mode == ssl.CERT_REQUIRED
            if not is_verified and not self.allows_clear_text:
                self._force_close()
                raise driver.err.OperationalError(_AUTHENTICATION_ERROR, _CLEAR_TEXT)

        def _read_bytes(self, num_bytes: int) -> bytes:
            self._received += num_bytes
            if self._received > MAX_RESULT_BYTES:
                self._force_close()
                raise driver.err.OperationalError(
                    _LOST, f"the server sent more than {MAX_RESULT_BYTES} bytes at once"
                )
            return super()._read_bytes(num_bytes)  # type: ignore[no-any-return]

    return GuardedConnection
