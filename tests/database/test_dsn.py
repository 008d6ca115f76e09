"""Parameters in the DSNs of hosting providers, and passwords in clear text."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

import asyncsvc
from asyncsvc import InvalidInput, Settings, Unavailable
from asyncsvc.database.dsn import parse_dsn

PASSWORD = "the-secret-password"


def with_query(dsn: str, query: str) -> str:
    return f"{dsn}{'&' if '?' in dsn else '?'}{query}"


# ---------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    "query",
    [
        "channel_binding=prefer",
        "connect_timeout=10",
        "connect_timeout=0&application_name=web",
        "fallback_application_name=web",
        "keepalives=1&keepalives_idle=30&keepalives_interval=10&keepalives_count=3",
        "keepalives=0",
        "tcp_user_timeout=30000",
        "pgbouncer=true",
        "pgbouncer=true&connect_timeout=15&schema=public",
        "schema=public",
        "sslmode=prefer&gssencmode=disable",
        "client_encoding=utf8",
        "options=-c%20search_path%3Dpublic",
        "statement_timeout=5000",
        "sslcompression=0&sslsni=1",
    ],
)
async def test_parameters_of_providers_are_applied(dsn, query):
    async with asyncsvc.connect(with_query(dsn, query)) as svc:
        assert (await svc.conversations.get_list(tenant_id="t")).total == 0


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("channel_binding=require", "channel_binding"),
        ("sslmode=require&channel_binding=require", "channel_binding"),
        ("connect_timeout=soon", "connect_timeout"),
        ("connect_timeout=-1", "connect_timeout"),
        ("keepalives_idle=" + "9" * 5_000, "keepalives_idle"),
        ("pgbouncer=yes", "pgbouncer"),
        ("schema=other", "schema"),
        ("pool_timeout=10", "pool_timeout"),
        ("connection_limit=5", "connection_limit"),
        ("socket_timeout=5", "socket_timeout"),
        ("statement_cache_size=0", "statement_cache_size"),
        ("sslaccept=strict", "sslaccept"),
        ("ssl=true", "ssl"),
        ("sslmode=no-verify", "sslmode"),
        ("sslmode=verify-full&sslrootcert=/nowhere/ca.crt", "sslrootcert"),
        ("sslmode=require&sslrootcert=system", "sslrootcert"),
        ("require_auth=scram-sha-256", "require_auth"),
        ("replication=database", "replication"),
        ("hostaddr=10.0.0.1", "hostaddr"),
        ("client_encoding=latin1", "client_encoding"),
        ("no_such_setting=1", "no_such_setting"),
        ("supa=base-pooler.x", "supa"),
        ("statement_timeout=soon", "statement_timeout"),
        ("max_connections=5", "max_connections"),
    ],
)
async def test_a_parameter_that_cannot_be_applied_is_named(dsn, query, name):
    with pytest.raises(InvalidInput, match=rf"\b{name}\b") as caught:
        await asyncsvc.connect(with_query(dsn, query))
    assert caught.value.field == "dsn"


async def test_a_parameter_of_a_replica_is_named(dsn):
    for query, name in (("pool_timeout=1", "pool_timeout"), ("sslmode=nonsense", "sslmode")):
        with pytest.raises(InvalidInput, match=name) as caught:
            await asyncsvc.connect(dsn, replicas=[with_query(dsn, query)])
        assert caught.value.field == "replicas"


def test_socket_parameters_have_the_effect_that_they_have_in_libpq():
    query = "keepalives=1&keepalives_idle=30&keepalives_interval=10&keepalives_count=3"
    (host,) = parse_dsn("dsn", f"postgresql://h/d?{query}&tcp_user_timeout=0&connect_timeout=7")
    assert (host.url, host.connect_timeout) == ("postgresql://h/d", 7)
    assert (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30) in host.socket_options
    assert len(host.socket_options) == 4


def test_each_host_of_a_dsn_has_the_parameters():
    hosts = parse_dsn(
        "dsn", "postgresql://u:p@one:1,two:2/d?target_session_attrs=any&pgbouncer=true&jit=off"
    )
    assert [each.url for each in hosts] == [
        "postgresql://u:p@one:1/d?jit=off",
        "postgresql://u:p@two:2/d?jit=off",
    ]
    assert all(each.is_pooler for each in hosts)


# ---------------------------------------------------------------- passwords in clear text


def message(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("!I", len(data) + 4) + data


CLEAR_TEXT = message(b"R", struct.pack("!I", 3))
NOTICE = message(b"N", b"SNOTICE\0Mlook\0\0")
ERROR = message(b"E", b"SFATAL\0C28P01\0Mno\0\0")


@asynccontextmanager
async def fake_server(
    *answers: bytes, encryption: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[str, bytearray]]:
    """Ask each client for its password with these bytes, and collect the bytes of the clients."""
    received = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                (length,) = struct.unpack("!I", await reader.readexactly(4))
                packet = await reader.readexactly(length - 4)
                if packet[:4] != struct.pack("!I", 80877103):
                    break
                writer.write(b"S" if encryption else b"N")
                if encryption:
                    await writer.start_tls(encryption)
            for answer in answers:
                writer.write(answer)
                await writer.drain()
                await asyncio.sleep(0.01)
            received.extend(await asyncio.wait_for(reader.read(1_000), 1))
            writer.write(ERROR)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"postgresql://u:{PASSWORD}@127.0.0.1:{port}/d", received


@pytest.mark.parametrize(
    "answers",
    [
        [CLEAR_TEXT],
        [NOTICE + CLEAR_TEXT],
        [CLEAR_TEXT[:1], CLEAR_TEXT[1:6], CLEAR_TEXT[6:]],
        [NOTICE[:3], NOTICE[3:] + CLEAR_TEXT[:5], CLEAR_TEXT[5:]],
        [message(b"R", struct.pack("!I", 3) + b"more")],
        [b"R" + struct.pack("!II", 0, 3)],
        [b"N" + struct.pack("!I", 0) + CLEAR_TEXT],
        [b"N" + struct.pack("!i", -5) + CLEAR_TEXT],
    ],
    ids=range(8),
)
@pytest.mark.parametrize("query", ["", "sslmode=disable", "sslmode=allow"])
async def test_no_server_gets_the_password_in_clear_text(answers, query):
    settings = Settings(acquire_timeout=5)
    async with fake_server(*answers) as (dsn, received):
        with pytest.raises((InvalidInput, Unavailable)) as caught:
            await asyncsvc.connect(with_query(dsn, query), settings=settings)
        assert PASSWORD not in str(caught.value)
    assert PASSWORD.encode() not in received


async def test_the_error_names_the_setting_that_allows_clear_text():
    async with fake_server(CLEAR_TEXT) as (fake, _):
        with pytest.raises(InvalidInput, match=r"verify-full.*allow_clear_text_password") as caught:
            await asyncsvc.connect(fake)
        assert caught.value.field == "dsn"


async def test_a_replica_that_asks_for_clear_text_is_skipped(dsn):
    async with (
        fake_server(CLEAR_TEXT) as (fake, received),
        asyncsvc.connect(dsn, replicas=[fake]) as svc,
    ):
        assert (await svc.conversations.get_list(tenant_id="t")).total == 0
    assert PASSWORD.encode() not in received


async def test_a_password_in_clear_text_is_sent_if_the_settings_allow_it():
    async with fake_server(CLEAR_TEXT) as (dsn, received):
        with pytest.raises((InvalidInput, asyncsvc.AsyncSvcError)):
            await asyncsvc.connect(dsn, settings=Settings(allow_clear_text_password=True))
    assert PASSWORD.encode() in received


async def test_a_password_in_clear_text_needs_a_verified_certificate(tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    make = await asyncio.create_subprocess_exec(
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj",
        "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out",
        certificate, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    if await make.wait():
        pytest.skip("openssl is missing")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    async with fake_server(CLEAR_TEXT, encryption=context) as (dsn, received):
        with pytest.raises(InvalidInput, match="clear text"):
            await asyncsvc.connect(with_query(dsn, "sslmode=require"))
        assert PASSWORD.encode() not in received
        verified = with_query(dsn, f"sslmode=verify-full&sslrootcert={certificate}")
        with pytest.raises(asyncsvc.AsyncSvcError, match="no"):
            await asyncsvc.connect(verified)
        assert PASSWORD.encode() in received


async def test_a_pool_of_the_caller_is_not_guarded():
    async with fake_server(CLEAR_TEXT) as (dsn, received):
        with pytest.raises(asyncpg.PostgresError):
            await asyncpg.create_pool(dsn, min_size=1)
    assert PASSWORD.encode() in received
