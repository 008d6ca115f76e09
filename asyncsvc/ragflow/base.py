"""The base of both services: the services of the library, a tenant and a time zone."""

from __future__ import annotations

from asyncsvc.client import Services
from asyncsvc.errors import InvalidInput
from asyncsvc.validation.dates import zone


class TenantService:
    """A service of one tenant, whose local times are those of one zone."""

    def __init__(self, svc: Services, *, tenant_id: str, tz: str = "UTC") -> None:
        """Wrap the services for one tenant and zone. Raises InvalidInput for an unknown zone."""
        if not isinstance(tz, str):
            raise InvalidInput("tz", "must be text")
        self._svc = svc
        self._tenant_id = tenant_id
        self._tz = tz
        self._local = zone(tz)

    def _check_tenant(self, tenant_id: str) -> None:
        if tenant_id != self._tenant_id:
            raise InvalidInput("tenant_id", "is not the tenant of this service")
