"""Sessions of the OpenAI Agents SDK, each a conversation with 1 message for each item.

The extra `openai-agents` installs the SDK.
"""

from asyncsvc.integrations.openai_agents.session import Session

__all__ = ["Session"]
