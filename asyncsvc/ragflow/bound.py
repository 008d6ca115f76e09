"""What both of RAGFlow's services share: the real services, a tenant, and a zone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from asyncsvc.client import Services
from asyncsvc.errors import InvalidInput
from asyncsvc.validation.dates import zone


class BoundService:
    """A service of one tenant, whose local times are those of one zone."""

    def __init__(self, svc: Services, *, tenant_id: str, tz: str = "UTC") -> None:
        """Bind to a tenant and a zone. Raises InvalidInput for a zone that is not known."""
        self._svc = svc
        self._tenant_id = tenant_id
        self._tz = tz
        if not isinstance(tz, str):
            raise InvalidInput("tz", "must be text")
        self._local = zone(tz)

    def _check_tenant(self, tenant_id: str) -> None:
        if tenant_id != self._tenant_id:
            raise InvalidInput("tenant_id", "is another than the one that this is bound to")


def check_columns(row: Any, known: Collection[str], name: str = "update_data") -> None:  # noqa: ANN401 - it is checked
    """Raise InvalidInput for what is no dict of columns, by its name, and for an unknown column."""
    if not isinstance(row, Mapping):
        raise InvalidInput(name, "must be a dict of columns")
    if unknown := row.keys() - set(known):
        raise InvalidInput(str(min(unknown, key=str)), "is no column that can be set")
