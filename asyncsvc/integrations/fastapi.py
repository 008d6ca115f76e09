"""FastAPI: the services in a lifespan, tokens, idempotency keys and problem details."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
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
from asyncsvc import APIToken, AsyncSvc, AsyncSvcError, InvalidInput, InvalidToken

STATUSES: Final[Mapping[type[Exception], int]] = {
    AsyncSvcError: 500,
    InvalidInput: 422,
    InvalidToken: 401,
    asyncsvc.InsufficientScope: 403,
    asyncsvc.BudgetExceeded: 429,
    asyncsvc.NotFound: 404,
    asyncsvc.AlreadyExists: 409,
    asyncsvc.Conflict: 409,
    asyncsvc.IdempotencyConflict: 422,
    asyncsvc.Unavailable: 503,
}
"""The status of each error. A class that is not here has the status of its base."""

_CODES: Final = {InvalidToken: "invalid_token", asyncsvc.InsufficientScope: "insufficient_scope"}
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


class _TokenError(HTTPException):  # FastAPI answers it also without `add_problem_details`
    def __init__(self, error: AsyncSvcError, code: str, scopes: Sequence[str] = ()) -> None:
        scope = quote(" ".join(scopes), safe=" !#$&'()*+,/:;=?@[]^`{|}")
        challenge = {"realm": "api", "error": code, "scope": scope}
        quoted = ", ".join(f'{name}="{value}"' for name, value in challenge.items() if value)
        super().__init__(
            STATUSES[type(error)], str(error), {"WWW-Authenticate": f"Bearer {quoted}"}
        )
        self.error = error


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
        raise _TokenError(error, _CODES[type(error)] if secret else "", required.scopes) from error


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
        if isinstance(error, AsyncSvcError) and type(error) in _CODES:
            error = _TokenError(error, _CODES[type(error)])
        headers = error.headers if isinstance(error, HTTPException) else None
        if isinstance(error, HTTPException) and error.status_code < HTTPStatus.BAD_REQUEST:
            return Response(None, error.status_code, headers)  # for example a redirect
        if retry := isinstance(error, asyncsvc.Unavailable):
            headers = {"Retry-After": str(retry_after)}
        problem = _describe(error.error if isinstance(error, _TokenError) else error, prefix)
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
    kinds = [AsyncSvcError, _TokenError, RequestValidationError, HTTPException, Exception]
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
    status = next(STATUSES[base] for base in kind.__mro__ if base in STATUSES)
    title = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__).capitalize()
    text = "; ".join(map(": ".join, fields.items())) or str(error)
    detail = None if status >= HTTPStatus.INTERNAL_SERVER_ERROR else text
    type_ = f"{prefix}{kind.__name__}"
    return Problem(type=type_, title=title, status=status, detail=detail, errors=fields or None)
