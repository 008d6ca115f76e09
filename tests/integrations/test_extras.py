"""The error of an integration whose framework is missing."""

import subprocess
import sys
from importlib import metadata

import pytest

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
