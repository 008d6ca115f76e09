"""Write RESULTS.md from the JSON of one or more runs and from `texts/`.

`texts/<suite>.md` is the introduction of a suite. In it, `{TITLE: A / B}` is replaced with the
median time of A divided by the median time of B in the contest of that title.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import charts
from benchmarks.report import significant

_TEXTS = Path(__file__).parent / "texts"
RESULTS = Path(__file__).parent / "RESULTS.md"
_QUOTED = re.compile(r"\{([^{}:]+): ([^{}/]+) / ([^{}]+)\}")


def write(sources: Sequence[Path], plots: Path | None, file: Path = RESULTS) -> None:
    """Write the results of runs, and draw the figures into `plots`.

    A suite of a later run replaces the same suite of an earlier run.
    """
    document = _joined([json.loads(source.read_text(encoding="utf-8")) for source in sources])
    if plots is not None:
        charts.write(document["results"], plots)
    parts = [*_head(document), *_targets(document["results"])]
    for suite in dict.fromkeys(result["suite"] for result in document["results"]):
        results = [result for result in document["results"] if result["suite"] == suite]
        parts += _suite(suite, results, plots, file)
    file.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _joined(documents: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the runs as one document. Raises SystemExit if their settings differ."""
    first, suites = documents[0], dict[str, list[Mapping[str, Any]]]()
    for document in documents:
        if document["settings"] != first["settings"]:
            raise SystemExit("the runs have different machines or server settings")
        newer = dict[str, list[Mapping[str, Any]]]()
        for result in document["results"]:
            newer.setdefault(result["suite"], []).append(result)
        suites |= newer
    command = "\n".join(document["command"] for document in documents)
    return {**first, "command": command, "results": [*itertools.chain(*suites.values())]}


def _head(document: Mapping[str, Any]) -> Iterator[str]:
    yield _text("introduction", document["results"])
    yield f"```sh\n{document['command']}\n```"
    yield _table(("what", "value"), [(k, v) for k, v in document["settings"].items()])


def _targets(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    rows = [
        (
            result["title"],
            f"{result['target']['value']:,g}",
            result["target"]["bound"],
            "met" if result["target"]["met"] else "**missed**",
        )
        for result in results
        if "target" in result
    ]
    if rows:
        yield "## Targets"
        yield _table(("what", "measured", "is to be", ""), rows)


def _suite(
    suite: str, results: Sequence[Mapping[str, Any]], plots: Path | None, file: Path
) -> Iterator[str]:
    yield f"## {suite.capitalize()}"
    if (_TEXTS / f"{suite}.md").exists():
        yield _text(suite, results)
    if plots is not None:
        for name in charts.figures(results):
            place = os.path.relpath(charts.path(name, plots), file.parent)
            yield f"![{charts.title(name)}]({place})"
    counted: list[str] = []
    for result in results:
        if "contenders" in result:
            yield _contest(result)
        elif "counted" in result:
            counted.append(f"- {result['title']}: {_counted(result['counted'])}")
        elif "target" not in result:
            counted.append(f"- {result['title']}")
    if counted:
        yield "\n".join(counted)


def _contest(result: Mapping[str, Any]) -> str:
    rows = [
        (
            row["contender"],
            f"{row['per_second']:,.0f}",
            significant(row["ratio"]),
            f"{row['p50_ms']:.2f}",
            f"{row['p99_ms']:.2f}",
        )
        for row in result["contenders"]
    ]
    title = result["title"][0].upper() + result["title"][1:]
    if result.get("checkpoints"):
        title += f" (checkpoints meanwhile: {result['checkpoints']})"
    return f"{title}:\n\n" + _table(
        ("contender", "a second", "of the first", "p50 ms", "p99 ms"), rows
    )


def _counted(values: Mapping[str, float]) -> str:
    return ", ".join(f"{value:,} {name}" for name, value in values.items())


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; with 3 or more columns all but the first are right-aligned."""
    align = ["---", *["---:" if len(head) > 2 else "---"] * (len(head) - 1)]  # noqa: PLR2004
    lines = [head, align, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _text(name: str, results: Sequence[Mapping[str, Any]]) -> str:
    text = (_TEXTS / f"{name}.md").read_text(encoding="utf-8").strip()
    return _QUOTED.sub(lambda match: _ratio(results, *map(_unwrapped, match.groups())), text)


def _unwrapped(text: str) -> str:
    return " ".join(text.split())


def _ratio(results: Sequence[Mapping[str, Any]], title: str, first: str, second: str) -> str:
    """Return the ratio of two contenders' median times, or `(not measured)`."""
    for result in results:
        if result["title"] == title and "contenders" in result:
            medians = {row["contender"]: row["p50_ms"] for row in result["contenders"]}
            if first in medians and medians.get(second):
                return f"{medians[first] / medians[second]:,.2f}"
    return "(not measured)"
