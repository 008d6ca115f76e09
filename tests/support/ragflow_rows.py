"""Rows as RAGFlow writes them, for its services."""

from typing import Any
from zoneinfo import ZoneInfo

TENANT, OTHER, AGENT = "tenant", "other", "agent-1"
SHANGHAI = ZoneInfo("Asia/Shanghai")
KEYS = {
    "id", "name", "dialog_id", "user_id", "exp_user_id", "message", "reference", "tokens", "source",
    "dsl", "duration", "round", "thumb_up", "errors", "version_title", "create_time", "create_date",
    "update_time", "update_date",
}  # fmt: skip
SECRET = "ragflow-" + "S" * 32
BETA = "b" * 32


def prologue(**fields: Any) -> dict[str, Any]:
    return {
        "id": "s1",
        "name": "",
        "dialog_id": AGENT,
        "user_id": "u1",
        "message": [{"role": "assistant", "content": "Hello", "created_at": 1_700_000_000.5}],
        "source": "agent",
        "dsl": {"graph": {"nodes": []}},
        "reference": [],
        "version_title": "v1",
    } | fields


def quoted(number: int) -> dict[str, Any]:
    return {"chunks": [{"id": f"c{number}", "content": "text"}], "doc_aggs": []}


def exchange(id: str, text: str) -> list[dict[str, Any]]:
    """Return a question and its answer, which share one id in RAGFlow."""
    return [
        {"role": "user", "content": text, "id": id},
        {"role": "assistant", "content": f"re: {text}", "created_at": 1.0, "id": id},
    ]
