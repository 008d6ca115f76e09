"""The data layer of Chainlit: threads are conversations, and steps are their messages.

The extra `chainlit` installs Chainlit.
"""

from asyncsvc.integrations.chainlit.data_layer import DataLayer

__all__ = ["DataLayer"]
