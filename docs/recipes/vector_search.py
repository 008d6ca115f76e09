"""Find messages by meaning: embeddings in a table of the application, joined to the messages."""

import asyncio
import os

import asyncpg
from pgvector import Vector
from pgvector.asyncpg import register_vector

import asyncsvc
from asyncsvc import Message, Turn

DSN = os.environ["ASYNCSVC_DSN"]
EMBEDDINGS = """
CREATE EXTENSION IF NOT EXISTS vector;
CREATE TABLE message_embedding (
    tenant_id text, conversation_id text, seq int, embedding vector(2) NOT NULL,
    PRIMARY KEY (tenant_id, conversation_id, seq),
    FOREIGN KEY (tenant_id, conversation_id, seq) REFERENCES asyncsvc.message ON DELETE CASCADE
);
CREATE INDEX ON message_embedding USING hnsw (embedding vector_cosine_ops);
"""
NEAREST = """
SELECT m.content
  FROM message_embedding AS e
  JOIN asyncsvc.message AS m USING (tenant_id, conversation_id, seq)
 WHERE e.tenant_id = $1
 ORDER BY e.embedding <=> $2
 LIMIT 1
"""


def embed(text: str) -> Vector:
    """Stand in for an embedding model."""
    return Vector([text.count("parcel") + 1, text.count("bill") + 1])


async def main() -> None:
    owner = await asyncpg.connect(DSN)
    await owner.execute(EMBEDDINGS)
    await owner.close()
    async with asyncpg.create_pool(DSN, min_size=0, init=register_vector) as pool:
        svc = asyncsvc.AsyncSvc(pool)
        chat = await svc.conversations.create(tenant_id="acme", dialog_id="support")
        async with pool.acquire() as connection, connection.transaction():
            for text in ("Where is my parcel?", "My bill is wrong."):
                turn = Turn(messages=[Message(role="user", content=text)])
                appended = await svc.on(connection).conversations.append_message(
                    chat.id, turn, tenant_id="acme"
                )
                await connection.execute(
                    "INSERT INTO message_embedding VALUES ('acme', $1, $2, $3)",
                    chat.id, appended.first_seq, embed(text),
                )  # fmt: skip
        print(await pool.fetchval(NEAREST, "acme", embed("a bill of yesterday")))
        # > My bill is wrong.


if __name__ == "__main__":
    asyncio.run(main())
