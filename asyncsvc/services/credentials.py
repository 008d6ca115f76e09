"""The secrets of API tokens: their format, and the hashes that stand for them at rest.

A secret is `prefix_` + 43 characters of 256 random bits + 6 of a checksum, in base 62. The
checksum is CRC-32 over what stands before it: a typo, or a scanner's guess, is refused without
asking the database. It is no protection; the 256 bits are.

At rest there is the SHA-256 of the whole secret, which suffices for a secret that nobody can guess
(OWASP ASVS 5.0, 6.5.2). With peppers it is HMAC-SHA-256 (RFC 2104) under one of them: then whoever
can write to the database, and does not have the pepper, cannot make a token either.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import zlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from asyncsvc.settings import Settings

UNPEPPERED: Final = 0
"""The version of a hash that no pepper went into."""
_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_OURS: Final = re.compile(r"[a-z][a-z0-9]{1,9}_[0-9A-Za-z]{49}", re.ASCII)
_FOREIGN: Final = re.compile(r"[!-~]{1,255}", re.ASCII)
_PREFIX: Final = re.compile(r"[a-z][a-z0-9]{1,9}[-_]", re.ASCII)
_RANDOM_DIGITS, _CHECKSUM_DIGITS, _HINT_DIGITS = 43, 6, 4
_STRONG_LENGTH: Final = 22  # characters of base 62 that hold 128 bits
_PURPOSE: Final = b"asyncsvc-token-v1\0"
"""So that a pepper that is used for something else too gives other hashes there."""


class Keyring:
    """Hashes secrets, by the peppers of the settings or by none."""

    __slots__ = ("_accepted", "version")

    def __init__(self, settings: Settings) -> None:
        """Read the peppers and which of them is in use."""
        peppers = {
            version: pepper.get_secret_value() for version, pepper in settings.token_peppers.items()
        }
        self.version = settings.token_pepper_version or max(peppers, default=UNPEPPERED)
        """The version of what is hashed now."""
        accepted = {self.version: peppers.get(self.version), **peppers}
        if settings.accept_unpeppered_tokens:
            accepted[UNPEPPERED] = None
        self._accepted = tuple(accepted.values())

    def hash(self, secret: str) -> bytes:
        """Return the 32 bytes that stand for a secret from now on."""
        return _hash(secret, self._accepted[0])

    def hashes(self, secret: str) -> list[bytes]:
        """Return all that may stand for a secret, the present one first."""
        return [_hash(secret, pepper) for pepper in self._accepted]


def new_secret(prefix: str) -> str:
    """Make a secret of 256 random bits."""
    body = f"{prefix}_{_base62(secrets.randbits(256), _RANDOM_DIGITS)}"
    return body + _checksum(body)


def is_ours(secret: str) -> bool:
    """Whether a text has the format and the checksum of a secret of ours, of any prefix."""
    return (
        _OURS.fullmatch(secret) is not None
        and _checksum(secret[:-_CHECKSUM_DIGITS]) == secret[-_CHECKSUM_DIGITS:]
    )


def is_foreign(secret: str, prefix: str) -> bool:
    """Whether a text may be a secret that another system issued: visible ASCII, not as ours are."""
    return (
        _FOREIGN.fullmatch(secret) is not None
        and _OURS.fullmatch(secret) is None
        and not secret.startswith(f"{prefix}_")
    )


def is_strong(secret: str) -> bool:
    """Whether a foreign secret is long enough to be random by 128 bits, its prefix not counted."""
    return len(secret) - _prefix_length(secret) >= _STRONG_LENGTH


def hint(secret: str) -> str:
    """Return the beginning of a secret by which people know it: its prefix and 4 characters more.

    A short secret, which could be guessed from them, shows its prefix alone.
    """
    shown = _HINT_DIGITS if is_strong(secret) else 0
    return secret[: _prefix_length(secret) + shown]


def _prefix_length(secret: str) -> int:
    match = _PREFIX.match(secret)
    return match.end() if match else 0


def _hash(secret: str, pepper: bytes | None) -> bytes:
    if pepper is None:
        return hashlib.sha256(secret.encode()).digest()
    return hmac.digest(pepper, _PURPOSE + secret.encode(), "sha256")


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _CHECKSUM_DIGITS)


def _base62(number: int, digits: int) -> str:
    """Write a number with this many digits of 0-9, A-Z, a-z, the highest first."""
    text = ""
    for _ in range(digits):
        number, digit = divmod(number, len(_ALPHABET))
        text = _ALPHABET[digit] + text
    return text
