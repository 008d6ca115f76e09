"""How maintenance handles a failed statement of one tenant."""

from __future__ import annotations

import logging
from typing import Final, TypeAlias

from asyncsvc.errors import DatabaseError, LockTimeout, StatementTimeout
from asyncsvc.models import MaintenanceFailure, MaintenanceJob, MaintenanceReport

_log: Final = logging.getLogger(__name__)
_WRONG_FOR_ALL_TENANTS: Final = "42"
"""The class of SQLSTATEs of missing rights and tables."""

TENANT_ERRORS: Final = (DatabaseError, StatementTimeout, LockTimeout)
"""Errors that the rows of one tenant can cause. Without a connection every tenant fails."""
TenantError: TypeAlias = DatabaseError | StatementTimeout | LockTimeout
SHRINK: Final = 8
"""After a failure a batch is this many times smaller."""


def failure(
    job: MaintenanceJob,
    tenant_id: str | None,
    error: TenantError,
) -> MaintenanceReport:
    """Report the failure of a tenant; raise the error if it affects all tenants.

    A lock timeout is not a failure: another session works on these rows.
    """
    if isinstance(error, DatabaseError) and error.sqlstate.startswith(_WRONG_FOR_ALL_TENANTS):
        raise error
    if isinstance(error, LockTimeout):
        return MaintenanceReport()
    text = f"{type(error).__name__}: {error}"
    failed = MaintenanceFailure(job=job, tenant_id=tenant_id, error=text)
    return MaintenanceReport(failures=(failed,))


def log_failure(failed: MaintenanceFailure) -> None:
    """Log a failure as a warning."""
    _log.warning(
        "maintenance of %s failed for the tenant %r: %s", failed.job, failed.tenant_id, failed.error
    )
