"""Keep the state of a LangGraph agent in its checkpointer, and the conversation in asyncsvc."""

import asyncio
import os
from operator import add
from typing import Annotated, TypedDict

import psycopg
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END, START, StateGraph
from psycopg.conninfo import make_conninfo

import asyncsvc
from asyncsvc import Message, Turn

DSN = os.environ["ASYNCSVC_DSN"]


class State(TypedDict):
    """The state of the agent between its steps."""

    questions: Annotated[list[str], add]
    answer: str


def respond(state: State) -> dict[str, str]:
    """Stand in for a language model."""
    return {"answer": f"Question {len(state['questions'])}: {state['questions'][-1]}"}


async def main() -> None:
    graph = StateGraph(State).add_node("respond", respond)
    graph.add_edge(START, "respond").add_edge("respond", END)
    # The tables of the checkpointer get a schema of their own, in the same database.
    async with await psycopg.AsyncConnection.connect(DSN, autocommit=True) as connection:
        await connection.execute("CREATE SCHEMA IF NOT EXISTS langgraph")
    checkpoints = make_conninfo(DSN, options="-c search_path=langgraph")
    async with (
        asyncsvc.connect(DSN) as svc,
        AsyncPostgresSaver.from_conn_string(checkpoints) as saver,
    ):
        await saver.setup()
        agent = graph.compile(checkpointer=saver)
        chat = await svc.conversations.create(tenant_id="acme", dialog_id="agent")
        for question in ("Where is my parcel?", "When does it arrive?"):
            # A thread for each conversation. Checkpoints have no tenant, so the id names it.
            config = RunnableConfig(configurable={"thread_id": f"acme/{chat.id}"})
            state = await agent.ainvoke({"questions": [question], "answer": ""}, config)
            turn = Turn(
                messages=[
                    Message(role="user", content=question),
                    Message(role="assistant", content=state["answer"]),
                ]
            )
            await svc.conversations.append_message(chat.id, turn, tenant_id="acme")
        print([m.content for m in await svc.conversations.messages(chat.id, tenant_id="acme")])
        # > [..., 'Question 1: Where is my parcel?', ..., 'Question 2: When does it arrive?']


if __name__ == "__main__":
    asyncio.run(main())
