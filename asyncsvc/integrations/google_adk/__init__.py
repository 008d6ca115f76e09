"""The session service of Google's Agent Development Kit (ADK).

An app is a dialog, a session a conversation, an event a message. The extra `google-adk` installs
the kit.
"""

from asyncsvc.integrations.google_adk.service import SessionService

__all__ = ["SessionService"]
