"""The documentation site builds, loads nothing from other hosts, and has every public name."""

import ast
import asyncio
import inspect
import os
import re
import sys
from pathlib import Path

import griffe
from mkdocstrings import Inventory

import asyncsvc
import asyncsvc.embedded
import asyncsvc.exports
import asyncsvc.integrations.fastapi
import asyncsvc.integrations.opentelemetry
import asyncsvc.ragflow
from asyncsvc.validation import types

ROOT = Path(__file__).parents[2]
ASSET = re.compile(r"<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)=[\"']?(?:https?:)?//")
CSS_ASSET = re.compile(r"(?:url\(|@import )[\"']?(?:https?:)?//")
INTEGRATIONS = [asyncsvc.integrations.fastapi, asyncsvc.integrations.opentelemetry]
"""Modules without `__all__`: their functions and classes are public."""
TRIVIAL = {"self", "id", "tenant_id", "actor", "reason"}
"""Parameters that mean the same in each method; the docstring of the class explains them."""


async def test_the_site_builds_strictly_and_is_complete(tmp_path):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path),
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    with (tmp_path / "objects.inv").open("rb") as file:
        inventory = Inventory.parse_sphinx(file)
    missing = [name for name in public_names() if name not in inventory]
    assert not missing, f"add to the pages in docs/reference: {', '.join(missing)}"
    assert list(foreign_assets(tmp_path)) == []


def public_names():
    """Yield the exported names and their methods, and the parameter types.

    The methods of Settings are for the checks of the library.
    """
    for module in (asyncsvc, asyncsvc.embedded, asyncsvc.exports, asyncsvc.ragflow):
        for name in module.__all__:
            yield f"{module.__name__}.{name}"
            value = getattr(module, name)
            if inspect.isclass(value) and value is not asyncsvc.Settings:
                yield from (f"{module.__name__}.{name}.{method}" for method in methods_of(value))
    yield from (f"{types.__name__}.{name}" for name in aliases())
    for module in INTEGRATIONS:
        own = (name for name, value in vars(module).items() if is_defined_in(module, value))
        yield from (f"{module.__name__}.{name}" for name in own if not name.startswith("_"))


def is_defined_in(module, value):
    is_code = inspect.isclass(value) or inspect.isfunction(value)
    return is_code and value.__module__ == module.__name__


def methods_of(cls):
    for name, value in inspect.getmembers(cls):
        function = value.fget if isinstance(value, property) else inspect.unwrap(value)
        own = str(getattr(function, "__module__", None)).startswith("asyncsvc")
        if inspect.isroutine(function) and own and not name.startswith("_"):
            yield name


def aliases():
    """Yield the parameter types."""
    tree = ast.parse(Path(types.__file__).read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and node.targets[0].id != "T":
            yield node.targets[0].id


def foreign_assets(site):
    """Yield the files that make a browser load something from another host."""
    for suffix, pattern in ((".html", ASSET), (".css", CSS_ASSET), (".svg", CSS_ASSET)):
        for file in site.rglob(f"*{suffix}"):
            if match := pattern.search(file.read_text(encoding="utf-8")):
                yield file.name, match[0]


def test_each_docstring_names_arguments_errors_and_cost():
    violations = [
        f"{function.path}: {', '.join(missing)}"
        for function in public_functions()
        if (missing := missing_parts(function))
    ]
    assert violations == []


def public_functions():
    package = griffe.load("asyncsvc", search_paths=[ROOT], docstring_parser="google")
    for name in set(asyncsvc.__all__) - {"Settings"}:
        target = package[name].final_target
        for member in target.all_members.values() if target.is_class else [target]:
            function = member.final_target if member.is_alias else member
            if function.is_function and not function.name.startswith("_"):
                yield function


def missing_parts(function):
    """Return the arguments, the raised errors and "Cost" if the docstring does not have them."""
    sections = function.docstring.parsed
    named = {
        item.name
        for section in sections
        if section.kind.value == "parameters"
        for item in section.value
    }
    raised = {
        str(item.annotation)
        for section in sections
        if section.kind.value == "raises"
        for item in section.value
    }
    missing = {parameter.name for parameter in function.parameters} - TRIVIAL - named
    raises = re.findall(r"\braise (\w+)\(", function.source)
    missing |= {error_named(name, function) for name in raises} - raised
    if "async" in function.labels and "Cost" not in {section.title for section in sections}:
        missing.add("Cost")
    return sorted(missing)


def error_named(name, function):
    """Return the class of `raise name(...)`: the name, or what the function of the name returns."""
    member = function.module.members.get(name)
    return str(member.returns) if member is not None and member.is_function else name
