"""`asyncsvc tokens import`: clear-text tokens of another system, stored as hashes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer

from asyncsvc.cli import lines
from asyncsvc.cli.lines import Item, UnreadableError
from asyncsvc.cli.options import Actor, AsJson, Dsn, TenantOfLines
from asyncsvc.cli.pipes import aside
from asyncsvc.cli.printing import many, print_json, print_pairs
from asyncsvc.cli.progress import Bar, bar, messages
from asyncsvc.cli.running import Exit, connected, run
from asyncsvc.client import AsyncSvc
from asyncsvc.models import TokenRecord
from asyncsvc.ragflow import TokenRow, TokenRows
from asyncsvc.ragflow.tokens import SECRET_COLUMNS
from asyncsvc.validation.inputs import safe_field_name

_AT_ONCE: Final = 1_000
_FIELDS: Final = frozenset(TokenRecord.model_fields)
_OF_RAGFLOW: Final = {"create_date", "update_time", "update_date"}  # what create_time says too


def import_(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="The tokens; - is standard input, gzip is fine.")
    ],
    *,
    dsn: Dsn = None,
    tenant: TenantOfLines = None,
    actor: Actor,
    as_json: AsJson = False,
) -> None:
    """Import tokens of another system, which keep working, and are stored as hashes.

    A line is a row of RAGFlow's api_token: `{"tenant_id": …, "token": …, "dialog_id": …,
    "source": …, "beta": …}`; beta becomes a token of its own, which never passes as the first.
    Run it again, and it adds nothing. A line that is wrong is named on stderr with the reason, and
    a secret that two tenants have; the rest goes in, and the exit code is 3.
    """
    run(_import(file, dsn, tenant, actor, as_json=as_json))


async def _import(
    file: str, dsn: str | None, tenant: str | None, actor: str | None, *, as_json: bool
) -> Exit:
    async with lines.arriving(file) as source:
        with bar(f"importing {file}", source.size) as shown:
            async with connected(dsn, max_size=1, foreign_tokens=True) as svc:
                importing = _Import(svc, tenant, actor, shown)
                chunks = _chunks(lines.objects(source.stream, _fields))
                while chunk := await aside(source.raw, lambda: next(chunks, None)):
                    await importing.load(chunk)
                    shown.show(many(importing.tokens, "token"), source.place)
    importing.print(as_json=as_json)
    return Exit.ATTENTION if importing.rejected else Exit.DONE


def _fields(line: dict[str, Any]) -> dict[str, Any]:
    """Return what the tokens of a line have in common, and the two secrets."""
    for name in _OF_RAGFLOW:
        line.pop(name, None)
    if isinstance(milliseconds := line.pop("create_time", None), int):
        try:
            line["created_at"] = datetime.fromtimestamp(milliseconds / 1_000, UTC)
        except (ValueError, OverflowError, OSError):
            raise UnreadableError("create_time: must be milliseconds since 1970") from None
    for name in ("created_at", "expires_at"):
        if isinstance(line.get(name), str):
            line[name] = lines.instant(line[name], UTC, name)
    if "secret" in line or "kind" in line:
        raise UnreadableError("secret and kind: are named token, or beta")
    if not any(line.get(name) for name in SECRET_COLUMNS):
        raise UnreadableError("token: is not there")
    if unknown := line.keys() - _FIELDS - set(SECRET_COLUMNS):  # it might be one more secret
        raise UnreadableError(f"{safe_field_name(min(unknown))}: is no field of a token")
    return line


def _chunks(items: Iterator[Item]) -> Iterator[list[Item]]:
    while chunk := list(itertools.islice(items, _AT_ONCE)):
        yield chunk


class _Import:
    """One import: what became of the tokens so far."""

    def __init__(self, svc: AsyncSvc, tenant: str | None, actor: str | None, shown: Bar) -> None:
        self._svc = svc
        self._tenant = tenant
        self._actor = actor
        self._shown = shown
        self.tokens = self.present = self.rejected = 0

    async def load(self, items: list[Item]) -> None:
        """Store the tokens of these lines, tenant by tenant."""
        of_tenants: dict[str, list[Item]] = {}
        for item in items:
            tenant = item.tenant_id or self._tenant
            if item.reason is not None:
                self._reject(item.number, item.reason)
            elif tenant is None:
                self._reject(item.number, "tenant_id: is not there, and --tenant was not given")
            elif self._tenant not in {None, tenant}:
                self._reject(item.number, "tenant_id: is another than --tenant says")
            else:
                of_tenants.setdefault(tenant, []).append(item)
        for tenant, rows in of_tenants.items():
            await self._load_into(tenant, rows)

    async def _load_into(self, tenant: str, items: list[Item]) -> None:
        rows = TokenRows(self._svc, tenant, self._actor)
        report = await rows.import_([TokenRow.from_columns(item.fields) for item in items])
        self.tokens += report.tokens
        self.present += report.present
        for rejected in report.rejected:
            name = rejected.column
            reason = str(rejected.error).replace("secret:", f"{name}:", 1)
            text = reason if reason.startswith(name) else f"{name}: {reason}"
            self._reject(items[rejected.index].number, text)

    def _reject(self, number: int, reason: str) -> None:
        self.rejected += 1
        self._shown.say(f"line {number}: {reason}")

    def print(self, *, as_json: bool) -> None:
        """Print the report."""
        report = {"tokens": self.tokens, "present": self.present, "rejected": self.rejected}
        if as_json:
            print_json(report)
            return
        print_pairs(
            {
                "tokens": f"{self.tokens:,}",
                "there already": f"{self.present:,}",
                "rejected": f"{self.rejected:,}",
            }
        )
        messages().print("They are good where Settings.accept_foreign_tokens is on.")
