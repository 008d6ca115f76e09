"""The errors of integrations without their framework, or without services."""

import importlib
import subprocess
import sys
from importlib import metadata

import pytest

import asyncsvc
from asyncsvc import InvalidInput
from asyncsvc.integrations import chatkit

INTEGRATIONS = [
    ("chainlit", "chainlit", "chainlit"),
    ("chatkit", "chatkit", "chatkit"),
    ("fastapi", "fastapi", "fastapi"),
    ("google_adk", "google.adk", "google-adk"),
    ("langchain", "langchain_core", "langchain"),
    ("openai_agents", "agents", "openai-agents"),
    ("opentelemetry", "opentelemetry", "opentelemetry"),
    ("pydantic_ai", "pydantic_ai", "pydantic-ai"),
]


@pytest.mark.parametrize(("module", "framework", "extra"), INTEGRATIONS)
def test_the_error_of_a_missing_framework_names_the_extra(module, framework, extra):
    code = f"import sys; sys.modules[{framework!r}] = None; import asyncsvc.integrations.{module}"
    result = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True
    )
    error = result.stderr.splitlines()[-1]
    assert error.startswith("ModuleNotFoundError: ")
    assert error.endswith(f": pip install 'asyncsvc[{extra}]'")
    assert extra in metadata.metadata("asyncsvc").get_all("Provides-Extra")


@pytest.mark.parametrize(
    ("module", "name", "arguments"),
    [
        ("openai_agents", "Session", ["s1", ...]),
        ("pydantic_ai", "MessageHistory", ["s1", ...]),
        ("langchain", "ChatMessageHistory", ["s1", ...]),
        ("google_adk", "SessionService", [...]),
        ("chatkit", "Store", [..., tuple]),
    ],
)
async def test_an_adapter_without_services_names_the_argument(module, name, arguments):
    adapter = getattr(importlib.import_module(f"asyncsvc.integrations.{module}"), name)
    options = {} if name == "SessionService" else {"dialog_id": "d"}
    if name != "Store":
        options["tenant_id"] = "acme"
    for svc in ("postgresql://db", None, asyncsvc.connect("postgresql://db")):
        with pytest.raises(InvalidInput, match="svc: must be services"):
            adapter(*(svc if each is ... else each for each in arguments), **options)


async def test_a_store_without_a_function_of_the_owner_names_the_argument(svc):
    with pytest.raises(InvalidInput, match="owner: must be a function"):
        chatkit.Store(svc, "acme", dialog_id="d")
