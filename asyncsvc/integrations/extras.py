"""The error of an integration whose framework is not installed."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager


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
