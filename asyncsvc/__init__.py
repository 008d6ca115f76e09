"""The async service layer for multi-tenant conversational applications on PostgreSQL.

`connect` or `AsyncSvc` give the two services, `APITokenService` and `API4ConversationService`;
`asyncsvc.errors` draws the tree of what they raise.
"""

from asyncsvc.client import AsyncSvc, Services, connect
from asyncsvc.errors import (
    AlreadyExists,
    AsyncSvcError,
    ConcurrentUse,
    Conflict,
    DatabaseError,
    EmbeddedServerError,
    IdempotencyConflict,
    InsufficientScope,
    InvalidInput,
    InvalidToken,
    MigrationError,
    NotFound,
    PoolExhausted,
    StaleSequence,
    StatementTimeout,
    Unavailable,
)
from asyncsvc.fields import ANY, UNSET, AnyType, UnsetType
from asyncsvc.models import (
    Appended,
    APIToken,
    Conversation,
    ConversationName,
    ConversationPatch,
    IssuedToken,
    Message,
    MessagePatch,
    Migration,
    NewConversation,
    Page,
    StoredMessage,
    TokenPatch,
    Turn,
    UsageBucket,
)
from asyncsvc.services import API4ConversationService, APITokenService, CommonService
from asyncsvc.settings import Settings

__all__ = [
    "ANY",
    "UNSET",
    "API4ConversationService",
    "APIToken",
    "APITokenService",
    "AlreadyExists",
    "Appended",
    "AsyncSvc",
    "AsyncSvcError",
    "CommonService",
    "ConcurrentUse",
    "Conflict",
    "Conversation",
    "ConversationName",
    "ConversationPatch",
    "DatabaseError",
    "EmbeddedServerError",
    "IdempotencyConflict",
    "InsufficientScope",
    "InvalidInput",
    "InvalidToken",
    "IssuedToken",
    "Message",
    "MessagePatch",
    "Migration",
    "MigrationError",
    "NewConversation",
    "NotFound",
    "Page",
    "PoolExhausted",
    "Services",
    "Settings",
    "StaleSequence",
    "StatementTimeout",
    "StoredMessage",
    "TokenPatch",
    "Turn",
    "Unavailable",
    "UnsetType",
    "UsageBucket",
    "connect",
]
