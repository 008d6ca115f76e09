"""Options that several commands share."""

from __future__ import annotations

import getpass
from datetime import tzinfo
from pathlib import Path
from typing import Annotated, TypeAlias, TypeVar

from pydantic import ValidationError
from typer import Option

from asyncsvc import ANY, AnyType, InvalidInput, Settings
from asyncsvc.validation.dates import zone

T = TypeVar("T")


def or_any(value: T | None) -> T | AnyType:
    """Return the value of an optional filter: ANY if the option is missing."""
    return ANY if value is None else value


def parse_zone(name: object) -> tzinfo:
    """Return the time zone of this name.

    Raises:
        ValueError: The name is unknown. Typer reports it as a wrong value of the option.
    """
    try:
        return zone(str(name))
    except InvalidInput as error:
        raise ValueError(error.reason) from None


def _read_settings(name: object) -> Settings:
    """Read `asyncsvc.Settings` from a JSON file."""
    path = Path(str(name))
    try:
        return Settings.model_validate_json(path.read_bytes())
    except OSError as error:
        reason = str(error.strerror)
    except InvalidInput as error:
        reason = str(error)
    except ValidationError as error:
        reason = error.errors(include_input=False)[0]["msg"]
    raise ValueError(f"{path}: {reason}")


def _user_name() -> str | None:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # the user of a container may have no name
        return None


SettingsFile: TypeAlias = Annotated[
    Settings | None,
    Option(
        "--settings",
        metavar="FILE",
        envvar="ASYNCSVC_SETTINGS",
        parser=_read_settings,
        help="The application's asyncsvc.Settings as JSON: peppers, limits, timeouts.",
    ),
]
Dsn: TypeAlias = Annotated[
    str, Option("--dsn", metavar="URL", envvar="ASYNCSVC_DSN", help="The database.")
]
Tenant: TypeAlias = Annotated[
    str, Option("--tenant", metavar="ID", envvar="ASYNCSVC_TENANT", help="The tenant.")
]
DefaultTenant: TypeAlias = Annotated[
    str | None,
    Option(
        "--tenant",
        metavar="ID",
        envvar="ASYNCSVC_TENANT",
        help="The tenant of lines without tenant_id. Lines of other tenants are rejected.",
    ),
]
Dialog: TypeAlias = Annotated[
    str | None, Option("--dialog", metavar="ID", help="Only this dialog.")
]
User: TypeAlias = Annotated[str | None, Option("--user", metavar="ID", help="Only this user.")]
TimeZone: TypeAlias = Annotated[
    tzinfo,
    Option(
        "--tz",
        metavar="ZONE",
        parser=parse_zone,
        help="The time zone of dates, for example Europe/Berlin.",
    ),
]
FromDate: TypeAlias = Annotated[
    str | None,
    Option("--from", metavar="DATE", help="The first day or instant, for example 2026-01-31."),
]
ToDate: TypeAlias = Annotated[
    str | None, Option("--to", metavar="DATE", help="The last day or instant, inclusive.")
]
After: TypeAlias = Annotated[
    str | None,
    Option("--after", metavar="CURSOR", help="The cursor that the previous page printed."),
]
AsJson: TypeAlias = Annotated[
    bool, Option("--json", help="Print one JSON document instead of tables.")
]
Yes: TypeAlias = Annotated[bool, Option("--yes", help="Do not ask for confirmation.")]
Actor: TypeAlias = Annotated[
    str | None,
    Option(
        "--actor",
        metavar="NAME",
        envvar="ASYNCSVC_ACTOR",
        help="The actor in the audit.",
        default_factory=_user_name,
        show_default="your user name",
    ),
]
