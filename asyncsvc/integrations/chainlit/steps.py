"""The steps of Chainlit, their feedback, and the favourites of its users."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Final

from chainlit.data.utils import queue_until_user_message

from asyncsvc import AlreadyExists, InvalidInput, NotFound
from asyncsvc.integrations.chainlit import items
from asyncsvc.integrations.chainlit.users import UserStore

if TYPE_CHECKING:
    from chainlit.step import StepDict
    from chainlit.types import Feedback

    from asyncsvc import Record

FAVORITES: Final = "chainlit-favorites"
"""The kind of the records with the favourites of a thread, each with the ids of its steps."""


class StepStore(UserStore):
    """The part of the data layer that stores steps, each a message with the id of the step."""

    @queue_until_user_message()
    async def create_step(self, step_dict: StepDict) -> None:
        """Store a step, or add its fields to the stored step. 1 round trip, a favourite 3.

        The message of a user counts 1 round; if it exists, it is not counted again.
        """
        if step_dict.get("type") == "user_message" and step_dict.get("threadId"):
            message = items.message_of(step_dict, self._svc.settings)
            turn = {"messages": [message], "round": 1, "token_id": self._token_id}
            try:
                await self._svc.conversations.append_message(
                    step_dict["threadId"], turn, create=self._new, tenant_id=self._tenant_id
                )
            except AlreadyExists:
                await self._put(step_dict, is_new=True)
            else:
                await self._index_favorite(step_dict, step_dict["threadId"])
        else:
            await self._put(step_dict, is_new=True)

    @queue_until_user_message()
    async def update_step(self, step_dict: StepDict) -> None:
        """Store what a step changes; an empty field changes nothing. 1 round trip."""
        await self._put(step_dict, is_new=False)

    async def _put(self, step: StepDict, *, is_new: bool) -> None:
        """Store a step or its change. Without a thread, 1 more round trip finds it."""
        thread_id = step.get("threadId") or await self._find(step["id"])
        settings = self._svc.settings
        await self._svc.conversations.put_message(
            thread_id,
            items.message_of({**step, "threadId": thread_id}, settings),
            patch=items.patch_of(step, settings, is_new=is_new),
            create=self._new,
            tenant_id=self._tenant_id,
        )
        await self._index_favorite(step, thread_id)

    async def _find(self, step_id: str) -> str:
        """Return the id of the thread of a step."""
        match = await self._svc.conversations.find_message(
            step_id, tenant_id=self._tenant_id, dialog_id=self._dialog_id
        )
        return match.conversation.id

    async def upsert_feedback(self, feedback: Feedback) -> str:
        """Store the feedback of a step, which replaces an earlier one. 1 round trip.

        Returns:
            The id of the feedback, which names the thread and the step.
        """
        step_id = feedback.forId
        thread_id = feedback.threadId or await self._find(step_id)
        id = json.dumps([thread_id, step_id])
        stored = {"forId": step_id, "id": id, "value": feedback.value, "comment": feedback.comment}
        await self._svc.conversations.set_feedback(
            thread_id,
            step_id,
            1 if feedback.value else -1,
            merge_payload={"feedback": [stored]},
            tenant_id=self._tenant_id,
        )
        return id

    async def delete_feedback(self, feedback_id: str) -> bool:
        """Delete the feedback of a step; return whether there is such a step. 1 round trip."""
        try:
            thread_id, step_id = json.loads(feedback_id)
            rate, tenant_id = self._svc.conversations.set_feedback, self._tenant_id
            await rate(
                thread_id, step_id, None, merge_payload={"feedback": None}, tenant_id=tenant_id
            )
        except (InvalidInput, NotFound, TypeError, ValueError):
            return False
        return True

    async def _index_favorite(self, step: StepDict, thread_id: str) -> None:
        """Add a step to the favourites of the thread's user, or remove it, if it says so."""
        metadata = step.get("metadata") or {}
        if "favorite" not in metadata:
            return
        conversation = await self._svc.conversations.get_by_id(thread_id, tenant_id=self._tenant_id)
        await self._svc.records.merge(
            FAVORITES,
            thread_id,
            {step["id"]: True if metadata["favorite"] else None},
            tenant_id=self._tenant_id,
            user_id=conversation.user_id,
        )

    async def get_favorite_steps(self, user_id: str) -> list[StepDict]:
        """Return the favourite steps of a user, newest first.

        2 round trips, and 1 for each step.
        """
        identifier = await self._identifier(user_id)
        after: str | None = None
        steps: list[StepDict] = []
        while True:
            page = await self._svc.records.list(
                FAVORITES, tenant_id=self._tenant_id, user_id=identifier, after=after
            )
            for favorites in await asyncio.gather(*map(self._favorites_of, page.items)):
                steps += favorites
            after = page.next
            if after is None:
                return items.in_order(steps)[::-1]

    async def _favorites_of(self, record: Record) -> list[StepDict]:
        steps = []
        for step_id in record.data:
            try:
                message = await self._svc.conversations.get_message(
                    record.id, step_id, tenant_id=self._tenant_id
                )
            except NotFound:  # deleted since
                continue
            step = items.step_of_message(message, record.id)
            if step["metadata"].get("favorite"):
                steps.append(step)
        return steps
