"""One class for each folder of `sql/`, with one typed method for each file.

UNSET means no condition. None means that the column is NULL.
"""

from asyncsvc.repositories.api_token import APITokenRepository
from asyncsvc.repositories.append_key import AppendKeyRepository
from asyncsvc.repositories.budget import BudgetRepository
from asyncsvc.repositories.conversation import ConversationRepository
from asyncsvc.repositories.maintenance import MaintenanceRepository
from asyncsvc.repositories.message import MessageRepository
from asyncsvc.repositories.migration import MigrationRepository
from asyncsvc.repositories.record import RecordRepository
from asyncsvc.repositories.search import SearchRepository
from asyncsvc.repositories.server import ServerRepository
from asyncsvc.repositories.session import SessionRepository
from asyncsvc.repositories.testing import DatabaseForTestsRepository
from asyncsvc.repositories.token_audit import TokenAuditRepository
from asyncsvc.repositories.usage import UsageRepository
from asyncsvc.repositories.usage_audit import UsageAuditRepository
from asyncsvc.repositories.usage_key import UsageKeyRepository
from asyncsvc.repositories.watch import WatchRepository

__all__ = [
    "APITokenRepository",
    "AppendKeyRepository",
    "BudgetRepository",
    "ConversationRepository",
    "DatabaseForTestsRepository",
    "MaintenanceRepository",
    "MessageRepository",
    "MigrationRepository",
    "RecordRepository",
    "SearchRepository",
    "ServerRepository",
    "SessionRepository",
    "TokenAuditRepository",
    "UsageAuditRepository",
    "UsageKeyRepository",
    "UsageRepository",
    "WatchRepository",
]
