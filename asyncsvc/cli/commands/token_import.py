"""`asyncsvc tokens import`: tokens of another system, in clear text, stored as hashes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final

from typer import Argument

from asyncsvc import InvalidInput, TokenRecord
from asyncsvc.cli.files import open_input
from asyncsvc.cli.importer import Importer
from asyncsvc.cli.json_lines import Item, JsonObject, read_objects
from asyncsvc.cli.options import Actor, AsJson, DefaultTenant, Dsn
from asyncsvc.cli.output import counted, print_json, print_pairs
from asyncsvc.cli.progress import progress_bar
from asyncsvc.cli.runner import Exit, asynchronous, connected
from asyncsvc.cli.terminal import remark
from asyncsvc.exports import UnreadableError
from asyncsvc.exports.record_lines import parse_instant
from asyncsvc.ragflow import TokenRow, TokenRows

_SECRETS: Final = ("token", "beta")
_REDUNDANT_TIMES: Final = {"create_date", "update_time", "update_date"}


@asynchronous
async def import_(
    file: Annotated[
        str, Argument(metavar="FILE", help="The file, plain or gzip; - is standard input.")
    ],
    *,
    dsn: Dsn,
    tenant_id: DefaultTenant = None,
    actor: Actor,
    as_json: AsJson = False,
) -> Exit:
    """Import tokens of another system as hashes; their secrets keep working.

    A line is a row of RAGFlow's api_token: `{"tenant_id": …, "token": …, "dialog_id": …,
    "source": …, "beta": …}`. Its beta becomes a second token of the kind beta. Stored tokens are
    skipped, so the import can be repeated. Invalid lines and secrets of other tenants are
    reported on stderr; the other lines are imported, and the exit code is 3.
    """
    async with open_input(file) as source, connected(dsn, foreign_tokens=True) as svc:
        with progress_bar(f"importing {file}", source.size) as bar:
            importer = TokenImporter(
                svc=svc,
                tenant_id=tenant_id,
                actor=actor,
                on_batch=lambda: bar.show(counted(importer.tokens, "token"), source.position),
            )
            await importer.run(read_objects(source.stream, _token_row), source.raw)
    counts = {
        "tokens": importer.tokens,
        "present": importer.present,
        "rejected": importer.rejections.count,
    }
    if as_json:
        print_json(counts)
    else:
        print_pairs({name: f"{count:,}" for name, count in counts.items()})
        remark("The tokens are valid where Settings.accept_foreign_tokens is on.")
    return Exit.ATTENTION if importer.rejections.count else Exit.DONE


@dataclass(kw_only=True)
class TokenImporter(Importer):
    """Imports rows of tokens."""

    actor: str | None
    tokens: int = 0
    present: int = 0

    async def import_batch(self, tenant_id: str, items: list[Item]) -> None:
        """Import rows into one tenant."""
        rows = TokenRows(self.svc, tenant_id, self.actor)
        report = await rows.import_([TokenRow.from_columns(item.fields) for item in items])
        self.tokens += report.tokens
        self.present += report.present
        for secret in report.rejected:
            reason = str(secret.error).removeprefix("secret: ").removeprefix(f"{secret.column}: ")
            self.reject(items[secret.index], f"{secret.column}: {reason}")


def _token_row(line: JsonObject) -> JsonObject:
    """Return the fields of a token and the secrets of a line."""
    for name in _REDUNDANT_TIMES:
        line.pop(name, None)
    if isinstance(milliseconds := line.pop("create_time", None), int):
        try:
            line["created_at"] = datetime.fromtimestamp(milliseconds / 1_000, UTC)
        except (ValueError, OverflowError, OSError):
            raise UnreadableError("create_time: must be milliseconds since 1970") from None
    for name in ("created_at", "expires_at"):
        if isinstance(time := line.get(name), str):
            line[name] = parse_instant(time, UTC, name)
    _check_secrets(line)
    fields = {name: value for name, value in line.items() if name not in _SECRETS}
    try:  # the name of an unknown field may be a secret, so the error of the model hides it
        TokenRecord.model_validate(fields | {"secret": "-"})
    except InvalidInput as error:
        raise UnreadableError(str(error)) from None
    return line


def _check_secrets(line: JsonObject) -> None:
    if "secret" in line or "kind" in line:
        raise UnreadableError("secret and kind: use token or beta instead")
    for name in _SECRETS:
        if not isinstance(line.get(name), str | None):
            raise UnreadableError(f"{name}: must be text")
    if not any(line.get(name) for name in _SECRETS):
        raise UnreadableError("token: is missing")
