"""Frozen pydantic models: inputs of the public methods, stored rows, pages and reports."""

from asyncsvc.models.base import (
    Model,
    ModelLike,
    as_model,
)
from asyncsvc.models.conversations import (
    Appended,
    Conversation,
    ConversationName,
    ConversationPatch,
    DialogSummary,
    FoundMessage,
    Hit,
    Message,
    MessagePatch,
    NewConversation,
    NewConversations,
    NewMessages,
    PatchesById,
    StoredMessage,
    Turn,
    microseconds,
)
from asyncsvc.models.operations import (
    Finding,
    Level,
    Migration,
    Plan,
    PoolStats,
    SQLStatement,
)
from asyncsvc.models.page import (
    Page,
)
from asyncsvc.models.records import (
    ConversationRecord,
    MessageRecord,
    Records,
)
from asyncsvc.models.reports import (
    Backlog,
    ErasureReceipt,
    ImportReport,
    MaintenanceFailure,
    MaintenanceJob,
    MaintenanceReport,
    PurgeReport,
    TenantReceipt,
    TokenImportReport,
)
from asyncsvc.models.stored_record import (
    Record,
)
from asyncsvc.models.tokens import (
    APIToken,
    IssuedToken,
    TokenEvent,
    TokenPatch,
    TokenRecord,
    TokenRecords,
)
from asyncsvc.models.usage import (
    UsageBucket,
)

__all__ = [
    "APIToken",
    "Appended",
    "Backlog",
    "Conversation",
    "ConversationName",
    "ConversationPatch",
    "ConversationRecord",
    "DialogSummary",
    "ErasureReceipt",
    "Finding",
    "FoundMessage",
    "Hit",
    "ImportReport",
    "IssuedToken",
    "Level",
    "MaintenanceFailure",
    "MaintenanceJob",
    "MaintenanceReport",
    "Message",
    "MessagePatch",
    "MessageRecord",
    "Migration",
    "Model",
    "ModelLike",
    "NewConversation",
    "NewConversations",
    "NewMessages",
    "Page",
    "PatchesById",
    "Plan",
    "PoolStats",
    "PurgeReport",
    "Record",
    "Records",
    "SQLStatement",
    "StoredMessage",
    "TenantReceipt",
    "TokenEvent",
    "TokenImportReport",
    "TokenPatch",
    "TokenRecord",
    "TokenRecords",
    "Turn",
    "UsageBucket",
    "as_model",
    "microseconds",
]
