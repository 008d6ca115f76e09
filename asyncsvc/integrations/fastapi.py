"""FastAPI: the services in a lifespan, tokens, idempotency keys and problem details."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from datetime import UTC, datetime
from decimal import Decimal
from http import HTTPStatus
from http.client import responses as phrases
from typing import Annotated, Any, Final
from urllib.parse import quote

from asyncsvc.integrations.extras import needs_extra

with needs_extra("fastapi"):
    from fastapi import Depends, FastAPI, Header, Request, Response
    from fastapi.exceptions import RequestValidationError
    from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes

from pydantic import BaseModel, BeforeValidator, Field
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

import asyncsvc
from asyncsvc import (
    APIToken,
    AsyncSvc,
    AsyncSvcError,
    BudgetExceeded,
    InvalidInput,
    InvalidToken,
    VerifiedToken,
)

STATUSES: Final[Mapping[type[Exception], int]] = {
    AsyncSvcError: 500,
    InvalidInput: 422,
    InvalidToken: 401,
    asyncsvc.InsufficientScope: 403,
    BudgetExceeded: 429,
    asyncsvc.NotFound: 404,
    asyncsvc.AlreadyExists: 409,
    asyncsvc.Conflict: 409,
    asyncsvc.IdempotencyConflict: 422,
    asyncsvc.Unavailable: 503,
}
"""The status of each error. A class that is not here has the status of its base. A `BudgetExceeded`
whose budget never resets has 402."""

_PROBLEM_JSON: Final = "application/problem+json"
_QUOTED: Final = r'"((?:[ !#-\[\]-~]|\\["\\]){1,255})"'
_log: Final = logging.getLogger(__name__)
_bearer = HTTPBearer(auto_error=False, description="The secret of an API token.")
_key = Header(
    alias="Idempotency-Key",
    pattern=rf"^([!#-~][!-~]{{0,254}}|{_QUOTED}( *;.*)?)$",
    description='A structured string, such as `"a1"`, or the same without quotes.',
)
# A text that may quote the request: it is shortened, and lone surrogates are replaced.
_Text = Annotated[str, BeforeValidator(lambda text: text[:500].encode(errors="replace").decode())]


def lifespan(
    open_services: Callable[[], AbstractAsyncContextManager[AsyncSvc]],
    own: Callable[[FastAPI], AbstractAsyncContextManager[Mapping[str, Any] | None]] | None = None,
) -> Callable[[FastAPI], AbstractAsyncContextManager[Mapping[str, Any]]]:
    """Return a lifespan that opens the services, for `FastAPI(lifespan=...)`.

    Args:
        open_services: Called at the start, for example `lambda: asyncsvc.connect(dsn)`.
        own: A lifespan of the application. The services are open while it runs.
    """

    @asynccontextmanager
    async def opened(app: FastAPI) -> AsyncGenerator[Mapping[str, Any]]:
        async with open_services() as svc, own(app) if own else nullcontext() as state:
            yield {**(state or {}), "asyncsvc": svc}

    return opened


async def services(connection: HTTPConnection) -> AsyncSvc:
    """Return the services of the lifespan. A dependency: `Depends(services)`."""
    svc: AsyncSvc | None = getattr(connection.state, "asyncsvc", None)
    if svc is None:
        raise RuntimeError("no services are open: run the application with lifespan(...)")
    return svc


class _Rejected(HTTPException):  # FastAPI answers it also without `add_problem_details`
    def __init__(self, error: AsyncSvcError, headers: Mapping[str, str]) -> None:
        super().__init__(_status_of(error, type(error)), str(error), headers)
        self.error = error


def _rejected(
    error: InvalidToken | asyncsvc.InsufficientScope | BudgetExceeded,
    scopes: Sequence[str] = (),
    *,
    has_token: bool = True,
) -> _Rejected:
    """Return the response to a token that is not accepted, with its headers."""
    if isinstance(error, BudgetExceeded):
        return _Rejected(error, _budget_headers(error))
    scope = quote(" ".join(scopes), safe=" !#$&'()*+,/:;=?@[]^`{|}")
    code = "invalid_token" if isinstance(error, InvalidToken) else "insufficient_scope"
    challenge = {"realm": "api", "error": code if has_token else "", "scope": scope}
    quoted = ", ".join(f'{name}="{value}"' for name, value in challenge.items() if value)
    return _Rejected(error, {"WWW-Authenticate": f"Bearer {quoted}"})


def _budget_headers(error: BudgetExceeded) -> dict[str, str]:
    """Return headers that keep clients from retries before the budget resets."""
    headers = {"x-should-retry": "false"}
    if error.resets_at is not None:
        seconds = math.ceil((error.resets_at - datetime.now(UTC)).total_seconds())
        headers["Retry-After"] = str(max(1, seconds))
    return headers


async def verified_token(
    required: SecurityScopes,
    header: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    svc: Annotated[AsyncSvc, Depends(services)],
) -> APIToken:
    """Return the token of the request. A dependency: `Security(verified_token, scopes=["chat"])`.

    The response is 401 without a valid token and 403 without a scope, with a challenge (RFC 6750).
    The cost is that of `APITokenService.verify`.
    """
    secret = header.credentials if header else ""
    try:
        return await svc.tokens.verify(secret, scopes=required.scopes)
    except (InvalidToken, asyncsvc.InsufficientScope) as error:
        raise _rejected(error, required.scopes, has_token=bool(secret)) from error


async def _none() -> None:
    """Return no subject."""


def token_within_budgets(
    user_id: Callable[..., str | Awaitable[str | None] | None] = _none,
    dialog_id: Callable[..., str | Awaitable[str | None] | None] = _none,
) -> Callable[..., Awaitable[VerifiedToken]]:
    """Return a dependency as `verified_token` that also checks budgets.

    For example `Security(token_within_budgets(user_id=session_user), scopes=["chat"])`. When a
    budget is spent, the response is 429 with `Retry-After`, or 402 if the budget never resets.
    The cost is that of `APITokenService.verify` with budgets.

    Args:
        user_id: A dependency that returns the acting user of the authenticated request.
        dialog_id: A dependency that returns the dialog. A token of a dialog has that one.
    """

    async def verified(
        required: SecurityScopes,
        header: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
        svc: Annotated[AsyncSvc, Depends(services)],
        user: str | None = Depends(user_id),
        dialog: str | None = Depends(dialog_id),
    ) -> VerifiedToken:
        secret = header.credentials if header else ""
        try:
            return await svc.tokens.verify(
                secret, scopes=required.scopes, budgets=True, user_id=user, dialog_id=dialog
            )
        except (InvalidToken, asyncsvc.InsufficientScope, BudgetExceeded) as error:
            raise _rejected(error, required.scopes, has_token=bool(secret)) from error

    return verified


async def idempotency_key(header: Annotated[str | None, _key] = None) -> str | None:
    """Return the value of the header Idempotency-Key, for `append_message`. A dependency."""
    quoted = re.match(_QUOTED, header or "")
    return header if quoted is None else re.sub(r"\\(.)", r"\1", quoted[1])


def mark_replay(response: Response, appended: asyncsvc.Appended) -> None:
    """Set the header `Idempotent-Replayed: true` if an earlier request stored the turn."""
    if appended.replayed:
        response.headers["Idempotent-Replayed"] = "true"


class Problem(BaseModel):
    """An error (RFC 9457). `type` and `status` are for programs, the texts are for people."""

    type: str = "about:blank"
    status: int
    title: str = Field(default_factory=lambda data: phrases.get(data["status"], "Error"))
    detail: _Text | None = None
    errors: dict[_Text, _Text] | None = None
    code: str | None = None
    budget: dict[str, str | int | None] | None = None

    def response(self, headers: Mapping[str, str] | None = None) -> Response:
        """Return the response of this problem."""
        return Response(
            self.model_dump_json(exclude_none=True), self.status, headers, _PROBLEM_JSON
        )


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return `responses` that document these statuses as problems of `add_problem_details`."""
    content = {_PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"content": content} for status in statuses}


def add_problem_details(
    app: FastAPI, *, prefix: str = "urn:asyncsvc:", retry_after: int = 2, all_errors: bool = False
) -> None:
    """Answer the errors of the library as problems, and describe them in the OpenAPI document.

    The texts of 5xx errors are logged and not sent.

    Args:
        prefix: The `type` of a problem is this prefix and the name of the error's class.
        retry_after: The header Retry-After of a 503, in seconds.
        all_errors: Also answer invalid requests, HTTPException and unexpected errors.
    """

    async def answer(request: Request, error: Exception) -> Response:
        if not isinstance(error, AsyncSvcError | RequestValidationError | HTTPException):
            error = HTTPException(500)  # the server logs the error
        if isinstance(error, InvalidToken | asyncsvc.InsufficientScope | BudgetExceeded):
            error = _rejected(error)
        headers = error.headers if isinstance(error, HTTPException) else None
        if isinstance(error, HTTPException) and error.status_code < HTTPStatus.BAD_REQUEST:
            return Response(None, error.status_code, headers)  # for example a redirect
        if retry := isinstance(error, asyncsvc.Unavailable):
            headers = {"Retry-After": str(retry_after)}
        problem = _describe(error.error if isinstance(error, _Rejected) else error, prefix)
        if isinstance(error, AsyncSvcError) and problem.detail is None:
            path, trace = quote(request.scope["path"]), None if retry else error
            _log.error("%s: %s", path, error, exc_info=trace)
        return problem.response(headers)

    def document() -> dict[str, Any]:
        result = openapi()
        result.setdefault("components", {}).setdefault("schemas", {})["Problem"] = schema
        return result

    schema = Problem.model_json_schema()
    openapi, app.openapi = app.openapi, document  # type: ignore[method-assign]
    kinds = [AsyncSvcError, _Rejected, RequestValidationError, HTTPException, Exception]
    for kind in kinds if all_errors else kinds[:2]:
        app.add_exception_handler(kind, answer)


def _describe(error: Exception, prefix: str) -> Problem:
    kind, fields = type(error), dict[str, str]()
    match error:
        case HTTPException(status_code=status, detail=text):
            return Problem(status=status, detail=str(text) if text != phrases.get(status) else None)
        case RequestValidationError():
            kind = InvalidInput
            fields = {".".join(map(str, it["loc"])): it["msg"] for it in error.errors()[:10]}
        case InvalidInput():
            fields = {error.field: error.reason}
    status = _status_of(error, kind)
    title = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__).capitalize()
    text = "; ".join(map(": ".join, fields.items())) or str(error)
    detail = None if status >= HTTPStatus.INTERNAL_SERVER_ERROR else text
    budget = _budget(error) if isinstance(error, BudgetExceeded) else None
    return Problem(
        type=f"{prefix}{kind.__name__}",
        title=title,
        status=status,
        detail=detail,
        errors=fields or None,
        code="budget_exceeded" if budget else None,
        budget=budget,
    )


def _status_of(error: Exception, kind: type[Exception]) -> int:
    if isinstance(error, BudgetExceeded) and error.resets_at is None:
        return HTTPStatus.PAYMENT_REQUIRED
    return next(STATUSES[base] for base in kind.__mro__ if base in STATUSES)


def _budget(error: BudgetExceeded) -> dict[str, str | int | None]:
    """Return the budget of an error. A Decimal is a text without an exponent."""
    used, limit = (
        format(value, "f") if isinstance(value, Decimal) else value
        for value in (error.used, error.limit)
    )
    resets_at = None if error.resets_at is None else error.resets_at.isoformat()
    return {
        "id": error.budget_id,
        "scope": error.scope,
        "subject": error.subject,
        "metric": error.metric,
        "used": used,
        "limit": limit,
        "window": error.window,
        "resets_at": resets_at,
    }
