"""asyncsvc.ragflow: RAGFlow's services over the library, called as RAGFlow's callers do it."""

from __future__ import annotations

from asyncsvc import AsyncSvc, ragflow


class Facade:
    """The sessions of one tenant."""

    def __init__(self, svc: AsyncSvc, tenant_id: str) -> None:
        """Use the pool of these services."""
        self._sessions = ragflow.API4ConversationService(svc, tenant_id=tenant_id)

    async def turn(self, id: str, messages: list[dict[str, str]]) -> None:
        """Append messages to the row that get_by_id returns."""
        _, session = await self._sessions.get_by_id(id)
        if session is None:
            raise LookupError(id)
        session.message += messages
        await self._sessions.append_message(id, session.to_dict())
