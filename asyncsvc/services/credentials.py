"""Secrets of API tokens: their format, their check and their hashes.

A secret is a prefix, an underscore, 43 digits in base 62 that hold 256 random bits, and 6 digits
that hold the CRC-32 of the text before them. Secrets with a wrong checksum, such as typing errors
and guesses, are rejected without a query. The 256 random bits protect the token; the checksum does
not.

The database stores the SHA-256 of the whole secret, which suffices for a secret that cannot be
guessed (OWASP ASVS 5.0, 6.5.2). With a pepper it stores the HMAC-SHA-256 (RFC 2104) under that
pepper. A person who can write to the database but lacks the pepper cannot add a working token.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import zlib
from typing import TYPE_CHECKING, Final

from asyncsvc.repositories.api_token import HashedSecret

if TYPE_CHECKING:
    from asyncsvc.settings import Settings

UNPEPPERED: Final = 0
"""The pepper version of a hash without a pepper."""
_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_OWN_FORMAT: Final = re.compile(r"[a-z][a-z0-9]{1,9}_[0-9A-Za-z]{49}", re.ASCII)
_FOREIGN_FORMAT: Final = re.compile(r"[!-~]{1,255}", re.ASCII)
_PREFIX: Final = re.compile(r"[a-z][a-z0-9]{1,9}[-_]", re.ASCII)
_RANDOM_DIGITS, _CHECKSUM_DIGITS, _HINT_DIGITS = 43, 6, 4
_MIN_STRONG_LENGTH: Final = 22
"""The number of base 62 digits that hold 128 bits."""
_CONTEXT: Final = b"asyncsvc-token-v1\0"
"""Makes the hashes differ from those of another use of the same pepper."""


class Keyring:
    """Hashes secrets with the peppers of the settings, or without a pepper."""

    __slots__ = ("_accepted", "version")

    def __init__(self, settings: Settings) -> None:
        """Read the peppers and the current version."""
        peppers = {
            version: pepper.get_secret_value() for version, pepper in settings.token_peppers.items()
        }
        self.version = settings.token_pepper_version or max(peppers, default=UNPEPPERED)
        """The version of the current pepper."""
        accepted = {self.version: peppers.get(self.version), **peppers}
        if settings.accept_unpeppered_tokens:
            accepted[UNPEPPERED] = None
        self._accepted = tuple(accepted.values())

    def hash(self, secret: str) -> HashedSecret:
        """Hash a secret with the current pepper."""
        return HashedSecret(
            token_hash=_hash(secret, self._accepted[0]),
            pepper_version=self.version,
            hint=hint(secret),
        )

    def accepted_hashes(self, secret: str) -> list[bytes]:
        """Return the hashes of a secret under all accepted peppers, the current one first."""
        return [_hash(secret, pepper) for pepper in self._accepted]


def new_secret(prefix: str) -> str:
    """Generate a secret of 256 random bits."""
    body = f"{prefix}_{_base62(secrets.randbits(256), _RANDOM_DIGITS)}"
    return body + _checksum(body)


def has_own_format(secret: str) -> bool:
    """Return whether a text has the format and the checksum of `new_secret`, with any prefix."""
    return (
        _OWN_FORMAT.fullmatch(secret) is not None
        and _checksum(secret[:-_CHECKSUM_DIGITS]) == secret[-_CHECKSUM_DIGITS:]
    )


def has_foreign_format(secret: str, prefix: str) -> bool:
    """Return whether a text can be a secret of another system.

    Such a secret is 1 to 255 visible ASCII characters. It neither has this library's format nor
    begins with `prefix` and an underscore, so that a mistyped secret of this library is no match.
    """
    return (
        _FOREIGN_FORMAT.fullmatch(secret) is not None
        and _OWN_FORMAT.fullmatch(secret) is None
        and not secret.startswith(f"{prefix}_")
    )


def is_strong(secret: str) -> bool:
    """Return whether a secret is long enough after its prefix to hold 128 random bits."""
    return len(secret) - _prefix_length(secret) >= _MIN_STRONG_LENGTH


def hint(secret: str) -> str:
    """Return the prefix and the next 4 characters of a secret, by which people recognize it.

    A short secret could be guessed from these 4 characters, so its hint is the prefix alone.
    """
    shown = _HINT_DIGITS if is_strong(secret) else 0
    return secret[: _prefix_length(secret) + shown]


def _prefix_length(secret: str) -> int:
    match = _PREFIX.match(secret)
    return match.end() if match else 0


def _hash(secret: str, pepper: bytes | None) -> bytes:
    if pepper is None:
        return hashlib.sha256(secret.encode()).digest()
    return hmac.digest(pepper, _CONTEXT + secret.encode(), "sha256")


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _CHECKSUM_DIGITS)


def _base62(number: int, digits: int) -> str:
    """Write a number with this many digits of 0-9, A-Z, a-z, the most significant first."""
    text = ""
    for _ in range(digits):
        number, digit = divmod(number, len(_ALPHABET))
        text = _ALPHABET[digit] + text
    return text
