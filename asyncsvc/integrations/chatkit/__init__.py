"""The store of a ChatKit server. A thread is a conversation, and an item is a message.

The extra `chatkit` installs ChatKit.
"""

from asyncsvc.integrations.chatkit.store import Store

__all__ = ["Store"]
