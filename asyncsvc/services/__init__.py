"""The services: rules, defaults and validation. They see repositories, never the driver."""

from asyncsvc.services.api_token import APITokenService
from asyncsvc.services.common import CommonService
from asyncsvc.services.conversation import API4ConversationService

__all__ = ["API4ConversationService", "APITokenService", "CommonService"]
