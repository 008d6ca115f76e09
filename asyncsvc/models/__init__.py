"""Frozen pydantic models: inputs of the public methods, stored rows, pages and reports."""

from asyncsvc.models.base import (
    Model,
    ModelOrMapping,
    as_model,
)
from asyncsvc.models.conversations import (
    Appended,
    Conversation,
    ConversationName,
    ConversationPatch,
    ConversationPatches,
    ConversationPatchLike,
    Hit,
    Message,
    MessagePatch,
    MessagePatchLike,
    NewConversation,
    NewConversations,
    StoredMessage,
    Turn,
    TurnLike,
    microseconds,
)
from asyncsvc.models.operations import (
    Finding,
    Level,
    Migration,
    Plan,
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
    ErasureReceipt,
    ImportReport,
    MaintenanceReport,
    PurgeReport,
    TenantReceipt,
    TokenImportReport,
)
from asyncsvc.models.tokens import (
    APIToken,
    IssuedToken,
    TokenEvent,
    TokenPatch,
    TokenPatchLike,
    TokenRecord,
    TokenRecords,
)
from asyncsvc.models.usage import (
    UsageBucket,
)

__all__ = [
    "APIToken",
    "Appended",
    "Conversation",
    "ConversationName",
    "ConversationPatch",
    "ConversationPatchLike",
    "ConversationPatches",
    "ConversationRecord",
    "ErasureReceipt",
    "Finding",
    "Hit",
    "ImportReport",
    "IssuedToken",
    "Level",
    "MaintenanceReport",
    "Message",
    "MessagePatch",
    "MessagePatchLike",
    "MessageRecord",
    "Migration",
    "Model",
    "ModelOrMapping",
    "NewConversation",
    "NewConversations",
    "Page",
    "Plan",
    "PurgeReport",
    "Records",
    "SQLStatement",
    "StoredMessage",
    "TenantReceipt",
    "TokenEvent",
    "TokenImportReport",
    "TokenPatch",
    "TokenPatchLike",
    "TokenRecord",
    "TokenRecords",
    "Turn",
    "TurnLike",
    "UsageBucket",
    "as_model",
    "microseconds",
]
