"""The errors of integrations without their framework, or without services."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from asyncsvc import Connecting, InvalidInput, Services


@contextmanager
def needs_extra(extra: str) -> Generator[None]:
    """Name the extra in the error of a missing module, for the imports in this block.

    The names of modules and of the packages that have them differ: `agents` is in `openai-agents`.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        reason = f"{error.msg}, which the extra installs: pip install 'asyncsvc[{extra}]'"
        raise ModuleNotFoundError(reason, name=error.name, path=error.path) from error


def require_services(svc: Services) -> Services:
    """Return the services of an application. Objects that delegate to services pass too.

    Raises:
        InvalidInput: A DSN, None, or a `connect` that is not awaited came in their place.
    """
    if svc is None or isinstance(svc, str | Connecting):
        raise InvalidInput(
            "svc", "must be services, such as those of `await asyncsvc.connect(dsn)`"
        )
    return svc
