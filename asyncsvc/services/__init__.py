"""The services: rules, defaults and validation. They see repositories, never the driver."""

from asyncsvc.services.budgets import BudgetService
from asyncsvc.services.common import CommonService
from asyncsvc.services.conversations import API4ConversationService
from asyncsvc.services.records import RecordService
from asyncsvc.services.tokens import APITokenService
from asyncsvc.services.watching import Watch

__all__ = [
    "API4ConversationService",
    "APITokenService",
    "BudgetService",
    "CommonService",
    "RecordService",
    "Watch",
]
