"""The start of the test server retries a failed connection, but not a rejected connection."""

import asyncio
import urllib.parse
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.servers import ServerError, answering_version, connected_version


@pytest_asyncio.fixture
async def late(server_dsn: str) -> AsyncIterator[str]:
    """The server's DSN through a proxy that closes its first two connections at once."""
    server = urllib.parse.urlsplit(server_dsn)
    refused = 2

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal refused
        if refused:
            refused -= 1
            writer.close()
            return
        behind = await asyncio.open_connection(server.hostname, server.port or 5432)
        await asyncio.gather(passed_on(reader, behind[1]), passed_on(behind[0], writer))

    proxy = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with proxy:
        user = server.netloc.rpartition("@")[0]
        port = proxy.sockets[0].getsockname()[1]
        yield server._replace(netloc=f"{user}@127.0.0.1:{port}").geturl()


async def passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
    writer.close()


async def test_a_connection_that_the_proxy_closes_is_retried(late: str) -> None:
    with pytest.raises(ServerError, match="cannot connect"):
        await asyncio.to_thread(connected_version, late)
    assert "PostgreSQL" in await asyncio.to_thread(answering_version, late)


async def test_a_connection_that_the_server_rejects_is_not_retried(server_dsn: str) -> None:
    nowhere = urllib.parse.urlsplit(server_dsn)._replace(path="/no_such_database").geturl()
    with pytest.raises(ServerError, match="no_such_database"):
        await asyncio.to_thread(answering_version, nowhere)
