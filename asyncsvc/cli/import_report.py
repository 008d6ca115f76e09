"""The report of an import, for people and as JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, fields

from asyncsvc import ImportReport
from asyncsvc.cli.import_context import ImportContext
from asyncsvc.cli.output import counted, print_json, print_pairs
from asyncsvc.cli.terminal import remark

_MAX_NAMED = 5


def needs_attention(report: ImportReport, context: ImportContext) -> bool:
    """Return whether records were rejected, or files are missing or end early."""
    return bool(report.rejected or context.missing or context.cut_off)


def print_import(
    report: ImportReport, context: ImportContext, seconds: float, *, as_json: bool
) -> None:
    """Print the counts of stored, rejected and omitted data."""
    for file in context.cut_off:
        remark(f"{file}: ends early; its complete conversations are imported")
    if context.missing:
        remark(f"missing files of the export: {', '.join(context.missing)}")
    if as_json:
        print_json(_as_json(report, context) | {"seconds": round(seconds, 3)})
        return
    rate = f"{report.messages / max(seconds, 1e-3):,.0f} per second"
    print_pairs(
        {
            "conversations": f"{report.conversations:,}",
            "messages": f"{report.messages:,}, {rate}",
            "present": f"{report.present:,}",
            "rejected": f"{report.rejected:,}",
            **_changes(report),
            **_details(report, context),
        }
    )


def _as_json(report: ImportReport, context: ImportContext) -> dict[str, object]:
    notes = {each.name: getattr(context.notes, each.name) for each in fields(context.notes)}
    return (
        report.model_dump()
        | {
            "unchanged": report.present - report.older - report.renamed,
            "formats": context.formats,
            "not_read": context.not_read,
            "missing": context.missing,
            "cut_off": context.cut_off,
            "rejections": [asdict(each) for each in context.rejections],
            "duplicates": context.duplicates,
        }
        | notes
        | {
            "feedback": context.notes.feedback,
            "feedback_not_applied": max(context.feedback_rows - context.notes.feedback, 0),
        }
    )


def _changes(report: ImportReport) -> dict[str, str]:
    """Return the changes of stored conversations, without those that did not occur."""
    appended = counted(report.messages_appended, "message")
    texts = {
        "renamed": (report.renamed, ""),
        "grown": (report.grown, ""),
        "rewritten": (report.rewritten, f", {report.messages_replaced:,} messages replaced"),
        "older": (report.older, ""),
        "diverged": (report.diverged, ""),
        "appended": (report.messages_appended, ""),
    }
    pairs = {name: f"{count:,}{more}" for name, (count, more) in texts.items() if count}
    return pairs | ({"appended": appended} if report.messages_appended else {})


def _details(report: ImportReport, context: ImportContext) -> dict[str, str]:
    """Return the counts of omitted, moved and replaced data."""
    notes = context.notes
    rows = max(context.feedback_rows - notes.feedback, 0)
    texts = {
        "format": ", ".join(sorted(set(context.formats.values()))),
        "left out": _counts(notes.left_out),
        "hidden": _counts(notes.hidden_types),
        "unknown": _counts(notes.unknown_types),
        "payload only": _counts(notes.payload_only),
        "no field for": _counts(notes.omitted_fields),
        "changed": _counts(notes.changed),
        "replaced": counted(report.replaced_characters, "character")
        if report.replaced_characters
        else "",
        "no time": counted(notes.missing_times, "message") if notes.missing_times else "",
        "derived ids": f"{notes.derived_ids:,}" if notes.derived_ids else "",
        "duplicates": f"{context.duplicates:,}" if context.duplicates else "",
        "feedback": f"{notes.feedback:,} applied, {rows:,} not" if context.feedback_rows else "",
        "not read": _names(context.not_read),
    }
    return {name: text for name, text in texts.items() if text}


def _counts(counter: Counter[str]) -> str:
    shown = [f"{name} {count:,}" for name, count in counter.most_common(_MAX_NAMED)]
    return ", ".join([*shown, "…"] if len(counter) > _MAX_NAMED else shown)


def _names(reasons: dict[str, str]) -> str:
    shown = [f"{name} ({reason})" for name, reason in list(reasons.items())[:_MAX_NAMED]]
    return ", ".join([*shown, "…"] if len(reasons) > _MAX_NAMED else shown)
