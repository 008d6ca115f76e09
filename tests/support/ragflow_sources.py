"""Databases with RAGFlow's tables, on a private MariaDB and on the PostgreSQL of the tests.

The MariaDB is Debian's `mariadb-server-core`. It listens on the loopback interface, is deleted at
the end, and belongs to one test process.
"""

import asyncio
import os
import pathlib
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import asyncpg

from asyncsvc.database import sql_files
from benchmarks.server import free_port

DDL = pathlib.Path(__file__).parent / "sql" / "ragflow.sql"
TYPES_ON_POSTGRESQL = {"DATETIME": "TIMESTAMP", "LONGTEXT": "TEXT", "FLOAT": "REAL"}
SECONDS = 60.0
TABLES = ("api_4_conversation", "api_token", "dialog", "user_canvas")
PASSWORD = secrets.token_hex(8)


def program(name: str) -> str | None:
    """Return the path of a program of MariaDB, also if it is not on PATH."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin")


class MariaDB:
    """A server with its own directory."""

    def __init__(self) -> None:
        self._directory = pathlib.Path(tempfile.mkdtemp(prefix="asyncsvc-mariadb-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.certificate = self._directory / "certificate"

    def start(self) -> None:
        account = "nobody" if os.geteuid() == 0 else None
        if account:
            shutil.chown(self._directory, account)
        owner = [f"--user={account}"] if account else []
        data = self._directory / "data"
        install = [
            program("mariadb-install-db"), "--no-defaults", f"--datadir={data}", *owner,
            "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve",
        ]  # fmt: skip
        subprocess.run(install, check=True, capture_output=True, timeout=SECONDS)
        self.port = free_port()
        log, key = self._directory / "log", self._directory / "key"
        certify = [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            "-subj", "/CN=tests", "-addext", "subjectAltName=IP:127.0.0.1",
            "-out", self.certificate, "-keyout", key,
        ]  # fmt: skip
        subprocess.run(certify, check=True, capture_output=True, timeout=SECONDS)
        if account:
            shutil.chown(key, account)
        serve = [
            program("mariadbd"), "--no-defaults", f"--datadir={data}", *owner,
            "--bind-address=127.0.0.1", f"--port={self.port}", f"--log-error={log}",
            f"--socket={self._directory / 'socket'}", f"--pid-file={self._directory / 'pid'}",
            f"--ssl-cert={self.certificate}", f"--ssl-key={key}",
            "--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0", "--skip-log-bin",
            "--innodb-buffer-pool-size=64M", "--performance-schema=OFF",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            serve, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        give_up = time.monotonic() + SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(log.read_text(errors="replace")[-2_000:])
            time.sleep(0.1)

    def _answers(self) -> bool:
        import pymysql

        path = str(self._directory / "socket")
        # The driver leaves a socket open if it cannot connect, so try without the driver first.
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(path):
                return False
        connection = pymysql.connect(unix_socket=path, user="root", autocommit=True)
        with connection, connection.cursor() as cursor:
            cursor.execute("CREATE USER 'ragflow'@'127.0.0.1' IDENTIFIED BY %s", (PASSWORD,))
            cursor.execute("GRANT ALL ON *.* TO 'ragflow'@'127.0.0.1' WITH GRANT OPTION")
        return True

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)


@dataclass
class Database:
    """A database of RAGFlow that tests write to."""

    dialect: str
    dsn: str

    async def create_tables(self) -> None:
        text = DDL.read_text(encoding="utf-8")
        if self.dialect == "postgresql":
            for of_mysql, of_postgresql in TYPES_ON_POSTGRESQL.items():
                text = text.replace(of_mysql, of_postgresql)
        for command in sql_files.commands(text):
            await self.execute(command)

    async def execute(self, command: str, *values: object) -> list[tuple[object, ...]]:
        """Run a statement with %s for each value, and return its rows."""
        return (await self._run(command, [values]))[0]

    async def insert(self, table: str, rows: Iterable[Mapping[str, object]]) -> None:
        """Insert rows that have the same columns."""
        rows = list(rows)
        columns = list(rows[0])
        places = ", ".join(["%s"] * len(columns))
        command = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})"
        await self._run(command, [tuple(row[name] for name in columns) for row in rows])

    async def _run(
        self, command: str, batches: list[tuple[object, ...]]
    ) -> list[list[tuple[object, ...]]]:
        if self.dialect == "mysql":
            return await asyncio.to_thread(self._run_on_mysql, command, batches)
        for number in range(command.count("%s")):
            command = command.replace("%s", f"${number + 1}", 1)
        connection = await asyncpg.connect(self.dsn)
        try:
            async with connection.transaction():
                return [
                    [tuple(row) for row in await connection.fetch(command, *values)]
                    for values in batches
                ]
        finally:
            await connection.close()

    def _run_on_mysql(
        self, command: str, batches: list[tuple[object, ...]]
    ) -> list[list[tuple[object, ...]]]:
        with mysql(self.dsn) as connection, connection.cursor() as cursor:
            results = []
            if len(batches) > 1:
                cursor.executemany(command, batches)
            else:
                cursor.execute(command, batches[0] or None)
                results.append(list(cursor.fetchall()))
            connection.commit()
        return results

    def as_reader(self) -> str:
        """Return the DSN for the role `reader`, which can only select."""
        return (
            urlsplit(self.dsn)
            ._replace(netloc=f"reader:reader@127.0.0.1:{urlsplit(self.dsn).port}")
            .geturl()
        )


def mysql(dsn: str):
    """Return a connection to the MariaDB of these tests."""
    import pymysql

    parts = urlsplit(dsn)
    return pymysql.connect(
        host="127.0.0.1", port=parts.port, user=parts.username, password=parts.password,
        database=parts.path.removeprefix("/"), charset="utf8mb4",
    )  # fmt: skip
