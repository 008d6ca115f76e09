"""Moves the conversations and tokens of RAGFlow's database here; RAGFlow may go on running.

A page of conversations is read, made good, and stored, each of them whole or not at all. What is
here already is left, so that the same call, made again, goes on where it was broken off; and what
has grown in the source since then gets what it lacks. So one moves everything at leisure, switches,
and moves once more.
"""

from __future__ import annotations

import enum
import itertools
import math
import unicodedata
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Any, Final, Literal, TypeVar

from asyncsvc.client import Services
from asyncsvc.errors import AlreadyExists, AsyncSvcError, Conflict, InvalidInput, NotFound
from asyncsvc.models import Conversation, Row
from asyncsvc.ragflow import repair, shapes
from asyncsvc.ragflow.drivers import Cells
from asyncsvc.ragflow.repair import Mending, UnusableError
from asyncsvc.ragflow.rows import TokenRows
from asyncsvc.ragflow.source import CONVERSATIONS, MAX_ROW_BYTES, TOKENS, Source, open_source
from asyncsvc.ragflow.turns import IN_TURN, append
from asyncsvc.services.credentials import hint, is_strong
from asyncsvc.settings import Settings
from asyncsvc.validation.arguments import validated
from asyncsvc.validation.checks import json_text
from asyncsvc.validation.dates import zone
from asyncsvc.validation.types import Actor, Id, Zone

_MOST: Final = {"round": 1_000, "tokens": 10**12, "duration": 10.0**9}
"""What one append counts at most."""
_NAMED: Final = 5
_REVOKED: Final = "0"

T = TypeVar("T")
Part = Literal["conversations", "tokens"]


class Skip(enum.StrEnum):
    """Why a row did not go in."""

    NO_TENANT = "no_tenant"
    """Its dialog or agent is gone, by which RAGFlow knows the tenant."""
    TOO_LONG = "too_long"
    """It is so long that it is not read, or not understood and too long to be kept."""
    REJECTED = "rejected"
    """It breaks a rule that nothing here mends; the reason says which."""
    DIVERGED = "diverged"
    """A conversation of this id is here, and is not the beginning of the source's."""
    TAKEN = "taken"
    """The secret is that of another tenant, or of a token of another kind."""
    WEAK = "weak"
    """The secret is short, and its hash would give it away without a pepper."""
    REVOKED = "revoked"
    """The token was revoked there, and is not good here; or it is a beta whose token is not."""


class Note(Row):
    """What somebody may want to know of a row: that it was skipped, or mended, and why.

    `row` is the conversation's id; of a token its tenant and how its secret begins, never more.
    """

    table: str
    row: str
    kind: Skip | Mending
    reason: str


class Moved(Row):
    """What became of the rows of a table: `read` is the sum of all the others.

    Of tokens each secret counts: a row with a beta has two.
    """

    read: int = 0
    written: int = 0
    grown: int = 0
    """They were here, and got what they had not: messages, or tokens their revocation."""
    present: int = 0
    """They were here, and are as they were."""
    skipped: Mapping[Skip, int] = {}


class Mended(Row):
    """How many conversations were mended in one way, and the first of their ids."""

    rows: int
    ids: tuple[str, ...]


class MovingReport(Row):
    """What a move did, or in a dry run would do.

    `total` is how many conversations there were to read, when it began; `messages` how many were
    stored. `mended` has the conversations that are here now, whenever they came. `left_out` are
    tables that could not be read, `lacking` what else the source does not have; `after` is the id
    behind which a move that was broken off goes on.
    """

    dry_run: bool
    total: int
    conversations: Moved
    messages: int
    tokens: Moved
    mended: Mapping[Mending, Mended]
    left_out: tuple[str, ...]
    lacking: tuple[str, ...]
    after: str | None

    @property
    def is_complete(self) -> bool:
        """Whether everything is here: nothing was skipped, lost or left out."""
        skipped = {**self.conversations.skipped, **self.tokens.skipped}
        return not skipped and not self.left_out and Mending.LOST not in self.mended


class Moving:
    """Moves what a RAGFlow database has to where these services keep theirs.

    They have to be the tables' owner's, as for `load`; and for its tokens to work, here as well as
    in the application, their settings need `accept_foreign_tokens`.
    """

    def __init__(self, svc: Services) -> None:
        """Store by these services."""
        self._svc = svc

    @property
    def settings(self) -> Settings:
        """The limits that everything is checked against."""
        return self._svc.conversations.settings

    @validated
    async def run(
        self,
        source: str,
        *,
        tz: Zone = "UTC",
        tenant_id: Id | None = None,
        orphans: Id | None = None,
        only: Part | None = None,
        after: Id | None = None,
        dry_run: bool = False,
        actor: Actor | None = None,
        on_batch: Callable[[MovingReport], None] | None = None,
        on_note: Callable[[Note], None] | None = None,
    ) -> MovingReport:
        """Move conversations and tokens; return what became of them.

        `source` is a URL of the database, `mysql://…` or `postgresql://…`, which is only read. `tz`
        is the zone of RAGFlow's server, in which its dates are; it wrote milliseconds besides.
        `tenant_id` moves one tenant alone; `orphans` is whom to give conversations whose dialog is
        gone; `only` moves one of the two tables; `after` begins behind an id, in the order of the
        source. `dry_run` does everything and rolls it back, batch by batch. `on_note` hears of each
        row that was skipped or mended, `on_batch` gets the report so far.

        A conversation that has grown is appended to, if what is here is how it begins: its new
        messages count from now, and usage by activity has them now. Nothing else of what is here is
        changed. A token that was revoked there since is revoked here, with the betas of its row; a
        beta that was replaced there replaces the one here.

        Raises InvalidInput for an option, for a URL that is none, for `orphans` of a database that
        does not tell whose the agents are, and where it is not RAGFlow's; Unavailable and
        DatabaseError for either database. When it fails half-way, what is stored stays, and the
        same call goes on.

        It reads pages of at most 500 rows and 4 MiB, or one row, in two statements, and holds one
        in memory; each page is stored by a `load` a tenant. What has grown costs two round trips
        and one a turn, a beta two, what was revoked one and two for each token that is not yet.
        """
        if tenant_id is not None and orphans not in {None, tenant_id}:
            raise InvalidInput("orphans", "must be the tenant that is moved alone")
        move = _Move(
            svc=self._svc,
            tz=zone(tz),
            tenant_id=tenant_id,
            orphans=orphans,
            actor=actor,
            tally=_Tally(dry_run=dry_run, after=after, on_batch=on_batch, on_note=on_note),
        )
        async with open_source(source) as tables:
            move.tally.lacking = tables.missing
            if orphans is not None and only != "tokens" and not tables.has_agents:
                raise InvalidInput("orphans", "are not told from agents' without user_canvas")
            for part, table, work in (
                ("conversations", CONVERSATIONS, move.conversations),
                ("tokens", TOKENS, move.tokens),
            ):
                if only not in {None, part}:
                    continue
                if tables.can_read(table):
                    await work(tables)
                else:
                    move.tally.left_out += (table,)
        return move.tally.report()


@dataclass(slots=True)
class _Count:
    """What became of the rows of a table so far."""

    read: int = 0
    written: int = 0
    grown: int = 0
    present: int = 0
    skipped: Counter[Skip] = field(default_factory=Counter)

    def moved(self) -> Moved:
        return Moved(
            read=self.read,
            written=self.written,
            grown=self.grown,
            present=self.present,
            skipped=dict(self.skipped),
        )


@dataclass(slots=True)
class _Tally:
    """The report as it grows, and who hears of it."""

    dry_run: bool
    after: str | None
    on_batch: Callable[[MovingReport], None] | None
    on_note: Callable[[Note], None] | None
    total: int = 0
    messages: int = 0
    conversations: _Count = field(default_factory=_Count)
    tokens: _Count = field(default_factory=_Count)
    mended: dict[Mending, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()

    def report(self) -> MovingReport:
        return MovingReport(
            dry_run=self.dry_run,
            total=self.total,
            conversations=self.conversations.moved(),
            messages=self.messages,
            tokens=self.tokens.moved(),
            mended={kind: Mended(rows=n, ids=ids) for kind, (n, ids) in self.mended.items()},
            left_out=self.left_out,
            lacking=self.lacking,
            after=self.after,
        )

    def tell(self) -> None:
        if self.on_batch is not None:
            self.on_batch(self.report())

    def skip(self, table: str, row: str, kind: Skip, reason: str) -> None:
        count = self.conversations if table == CONVERSATIONS else self.tokens
        count.skipped[kind] += 1
        self._note(table, row, kind, reason)

    def mend(self, id: str, mendings: Mapping[Mending, str]) -> None:
        for kind, place in mendings.items():
            rows, ids = self.mended.get(kind, (0, ()))
            self.mended[kind] = rows + 1, ids if len(ids) == _NAMED else (*ids, id)
            self._note(CONVERSATIONS, id, kind, place)

    def _note(self, table: str, row: str, kind: Skip | Mending, reason: str) -> None:
        if self.on_note is not None:
            self.on_note(Note(table=table, row=row, kind=kind, reason=reason))


class _RolledBack(Exception):
    """A dry run did what it was to do."""


@dataclass(frozen=True, slots=True)
class _Move:
    """One move: where to, for whom, and what has become of it."""

    svc: Services
    tz: tzinfo
    tenant_id: str | None
    orphans: str | None
    actor: str | None
    tally: _Tally

    @asynccontextmanager
    async def _batch(self) -> AsyncIterator[Services]:
        """Lend the services; in a dry run, nothing is left of what they did."""
        if not self.tally.dry_run:
            yield self.svc
            return
        with suppress(_RolledBack):
            async with self.svc.transaction() as svc:
                yield svc
                raise _RolledBack

    # --------------------------------------------------------- conversations

    async def conversations(self, source: Source) -> None:
        """Move all conversations, page by page."""
        tally = self.tally
        wanted: dict[str, Any] = {
            "after": tally.after,
            "tenant_id": self.tenant_id,
            "orphans": self.orphans is not None and self.orphans == self.tenant_id,
        }
        tally.total = await source.count(**wanted)
        tally.tell()
        async for page in source.pages(**wanted):
            tally.conversations.read += len(page.rows) + len(page.too_long)
            for id in page.too_long:
                reason = f"is longer than {MAX_ROW_BYTES // 2**20} MiB"
                tally.skip(CONVERSATIONS, id, Skip.TOO_LONG, reason)
            async with self._batch() as svc:
                for tenant_id, rows in self._of_tenants(page.rows).items():
                    await _Conversations(svc, tenant_id, rows, tally).store()
            tally.after = page.last_id
            tally.tell()

    def _of_tenants(self, rows: Sequence[Cells]) -> dict[str, list[repair.Repaired]]:
        """Make good what has a tenant and can be read."""
        of_tenants = dict[str, list[repair.Repaired]]()
        for row in rows:
            tenant_id = row["dialog_tenant_id"] or row.get("agent_tenant_id") or self.orphans
            if not tenant_id:
                reason = "its dialog or agent is gone: --orphans says whom to give it to"
                self.tally.skip(CONVERSATIONS, row["id"], Skip.NO_TENANT, reason)
                continue
            try:
                made = repair.conversation(row, self.tz, self.svc.conversations.settings)
            except UnusableError as error:
                self.tally.skip(CONVERSATIONS, row["id"], Skip.TOO_LONG, str(error))
            else:
                of_tenants.setdefault(tenant_id, []).append(made)
        return of_tenants

    # ---------------------------------------------------------------- tokens

    async def tokens(self, source: Source) -> None:
        """Move all tokens: in a dry run in one transaction, or none would meet its twin."""
        numbers = itertools.count(1)
        async with self._batch() as svc:
            async for page in source.tokens(tenant_id=self.tenant_id):
                of_tenants = dict[str, list[_TokenRow]]()
                for row in page:
                    made = _TokenRow.of(next(numbers), row, self.tz)
                    of_tenants.setdefault(row["tenant_id"], []).append(made)
                for tenant_id, rows in of_tenants.items():
                    await self._move_tokens(TokenRows(svc, tenant_id, self.actor), rows)
                self.tally.tell()

    async def _move_tokens(self, here: TokenRows, rows: Sequence[_TokenRow]) -> None:
        self.tally.tokens.read += sum(len(row.columns) for row in rows)
        await self._load_tokens(here, [row for row in rows if not row.is_over])
        for row in rows:
            if row.is_over:
                await self._revoke_tokens(here, row)

    async def _load_tokens(self, here: TokenRows, rows: Sequence[_TokenRow]) -> None:
        rejected = dict[tuple[int, str], AsyncSvcError]()

        def reject(place: int, column: str, error: AsyncSvcError) -> None:
            rejected[place, column] = error

        try:
            report = await here.load([row.fields for row in rows], reject)
        except InvalidInput as error:
            places = [(place, column) for place, row in enumerate(rows) for column in row.columns]
            _reject_tenant(error, rejected, places)
        else:
            self.tally.tokens.written += report.tokens
            self.tally.tokens.present += report.present
        for (place, column), reason in rejected.items():
            row = rows[place]
            self.tally.skip(TOKENS, row.told(column), row.why(column, reason), str(reason))

    async def _revoke_tokens(self, here: TokenRows, row: _TokenRow) -> None:
        """End what is good here of a row that was revoked there since."""
        ended = await here.revoke_secrets(row.fields, "revoked in RAGFlow")
        self.tally.tokens.grown += len(ended)
        for column in row.columns:
            if column not in ended:
                self.tally.skip(TOKENS, row.told(column), Skip.REVOKED, "is revoked there")


def _reject_tenant(
    error: InvalidInput, rejected: dict[T, AsyncSvcError], places: Iterable[T]
) -> None:
    """Refuse all of a tenant whose id cannot be; any other error is none of theirs."""
    if error.field != "tenant_id":
        raise error
    rejected |= dict.fromkeys(places, error)


@dataclass(frozen=True, slots=True)
class _TokenRow:
    """A row of tokens to load, and what its secrets may be called where somebody reads it."""

    name: str
    fields: dict[str, Any] = field(repr=False)
    is_over: bool
    """Whether it was revoked there."""

    @classmethod
    def of(cls, number: int, row: Cells, tz: tzinfo) -> _TokenRow:
        """Make it of a row of the source, named by its tenant and number."""
        name = f"{row['tenant_id']}, row {number}"
        return cls(name, repair.token(row, tz), row.get("status") == _REVOKED)

    @property
    def columns(self) -> list[str]:
        """The columns that hold a secret."""
        return [column for column in shapes.SECRETS if self.fields[column]]

    def told(self, column: str) -> str:
        """Name a secret by how it begins."""
        return f"{self.name}, {column} {hint(self.fields[column])}…"

    def why(self, column: str, error: AsyncSvcError) -> Skip:
        """Return why a secret was rejected."""
        if isinstance(error, AlreadyExists):
            return Skip.TAKEN
        if isinstance(error, Conflict):
            return Skip.REVOKED
        is_of_secret = isinstance(error, InvalidInput) and error.field == "secret"
        return Skip.WEAK if is_of_secret and not is_strong(self.fields[column]) else Skip.REJECTED


@dataclass(frozen=True, slots=True)
class _Conversations:
    """The conversations of a page that belong to one tenant."""

    svc: Services
    tenant_id: str
    rows: Sequence[repair.Repaired]
    tally: _Tally

    async def store(self) -> None:
        """Store what is new, and append to what has grown."""
        rejected = dict[int, AsyncSvcError]()
        count = self.tally.conversations
        try:
            report = await self.svc.conversations.import_(
                (row.fields for row in self.rows),
                tenant_id=self.tenant_id,
                on_rejected=rejected.__setitem__,
            )
        except InvalidInput as error:
            _reject_tenant(error, rejected, range(len(self.rows)))
        else:
            count.written += report.conversations
            count.present += report.present
            self.tally.messages += report.messages
        for place, row in enumerate(self.rows):
            if place not in rejected or await self._settle(row.fields, rejected[place]):
                self.tally.mend(row.fields["id"], row.mendings)

    async def _settle(self, fields: Mapping[str, Any], error: AsyncSvcError) -> bool:
        """Append to what was rejected since it has grown, or skip it; say whether it is here."""
        id = fields["id"]
        if not isinstance(error, AlreadyExists):
            self.tally.skip(CONVERSATIONS, id, Skip.REJECTED, str(error))
            return False
        try:
            grown_by = await self._catch_up(fields)
        except InvalidInput as wrong:
            self.tally.skip(CONVERSATIONS, id, Skip.REJECTED, str(wrong))
            return False
        if grown_by is None:
            reason = "a conversation of this id is here, with other messages"
            self.tally.skip(CONVERSATIONS, id, Skip.DIVERGED, reason)
            return False
        self.tally.conversations.grown += grown_by > 0
        self.tally.conversations.present += grown_by == 0
        self.tally.messages += grown_by
        return True

    async def _catch_up(self, fields: Mapping[str, Any]) -> int | None:
        """Append what a conversation has got since; return how many messages, None if it diverged.

        Who writes to it at this moment may be another move, and what it has got is there then.
        """
        for _ in range(2):
            with suppress(Conflict, NotFound):
                return await self._append_rest(fields)
        return None

    async def _append_rest(self, fields: Mapping[str, Any]) -> int | None:
        messages = fields["messages"]
        stored = await self.svc.conversations.get_by_id(
            fields["id"], tenant_id=self.tenant_id, include_dsl=False, include_messages=True
        )
        if not _begins(stored, messages):
            return None
        if missing := len(messages) - stored.last_seq:
            async with self.svc.transaction() as svc:
                await self._append(svc, stored, fields)
        return missing

    async def _append(self, svc: Services, stored: Conversation, fields: Mapping[str, Any]) -> None:
        """Append what is new, turn by turn, with what the counters have grown by meanwhile."""
        seq = stored.last_seq
        new = list(_judged(fields["messages"], stored))
        growth = {name: max((fields[name] or 0) - getattr(stored, name), 0) for name in _MOST}
        turns = _turns(new, self.svc.conversations.settings, _least(growth, len(new)))
        for messages in turns:
            counted = {name: min(left, _MOST[name]) for name, left in growth.items()}
            turn = {**counted, "errors": fields["errors"], "dsl": fields["dsl"]}
            appended = await append(
                svc, stored.id, turn, messages, tenant_id=self.tenant_id, expected_seq=seq
            )
            seq = appended.last_seq
            growth = {name: left - counted[name] for name, left in growth.items()}


def _least(growth: Mapping[str, Any], messages: int) -> int:
    """Return by how many turns so much can be counted. Raises InvalidInput for too few messages."""
    turns: dict[str, int] = {name: math.ceil(growth[name] / most) for name, most in _MOST.items()}
    name = max(turns, key=lambda each: turns[each])
    if turns[name] > messages:
        raise InvalidInput(name, "has grown by more than its new messages can carry")
    return max(turns[name], 1)


def _begins(stored: Conversation, messages: Sequence[Mapping[str, Any]]) -> bool:
    """Say whether what is stored is the beginning of these messages, or all of them."""
    there = stored.messages or ()
    return (
        len(there) <= len(messages)
        and stored.last_seq == len(there)
        and all(
            (ours.seq, ours.role, ours.content)
            == (seq, theirs["role"], unicodedata.normalize("NFC", theirs["content"]))
            for seq, (ours, theirs) in enumerate(zip(there, messages, strict=False), start=1)
        )
    )


def _judged(
    messages: Sequence[Mapping[str, Any]], stored: Conversation
) -> Iterator[Mapping[str, Any]]:
    """Return what is not stored, with the thumbs up that are not counted yet.

    One that only the row counts may have gone to an earlier answer the last time.
    """
    missing = sum(each["thumb"] == 1 for each in messages) - stored.thumb_up
    for message in messages[stored.last_seq :]:
        is_up = message["thumb"] == 1
        yield {**message, "thumb": None} if is_up and missing <= 0 else message
        missing -= is_up


def _turns(
    messages: Sequence[Mapping[str, Any]], settings: Settings, least: int
) -> Iterator[list[Mapping[str, Any]]]:
    """Cut messages into turns that one append may carry, and into so many at least."""
    most = min(settings.max_batch_size, len(messages) // least)
    turn, size = list[Mapping[str, Any]](), 0
    for message in messages:
        more = sum(len(json_text(message.get(name)).encode()) for name in IN_TURN)
        # Half of it, for the state and the errors come on top.
        if turn and (len(turn) == most or size + more > settings.max_batch_bytes // 2):
            yield turn
            turn, size = [], 0
        turn.append(message)
        size += more
    if turn:
        yield turn
