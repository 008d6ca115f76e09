"""The pages that are texts from outside of `docs/`, such as README and CONTRIBUTING."""

from __future__ import annotations

import os.path
import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
START_PAGE_END: Final = "## Run it"
"""The heading of README above which the start page of the site ends."""
PAGES: Final = {
    "CONTRIBUTING.md": "docs/project/contributing.md",
    "SECURITY.md": "docs/project/security.md",
    "CHANGELOG.md": "docs/project/changelog.md",
    "benchmarks/RESULTS.md": "docs/benchmarks.md",
}
"""The pages by the files that they show."""
_LINK: Final = re.compile(r"(!?)\[([^]]*)\]\((?!https?://|#|mailto:)([^)#]+)(#[^)]*)?\)")


def pages() -> dict[str, str]:
    """Return the start page of the site, and the page of each file."""
    start = _read("README.md").partition(START_PAGE_END)[0].rstrip() + "\n"
    return {"docs/index.md": _relink(start, "README.md", "docs/index.md")} | {
        page: _page(file, page) for file, page in PAGES.items() if (ROOT / file).exists()
    }


def _page(file: str, page: str) -> str:
    """Return the page of a file. Without relative links the build includes the file itself."""
    text = _read(file)
    relinked = _relink(text, file, page)
    return f'--8<-- "{file}"\n' if relinked == text else relinked


def _read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _relink(text: str, file: str, page: str) -> str:
    """Make the links of a file relative to its page. Links that leave the site become text."""

    def relink(match: re.Match[str]) -> str:
        mark, label, target, anchor = match.groups()
        linked = os.path.normpath(Path(file).parent / target)
        linked = PAGES.get(linked, linked)
        if not linked.startswith("docs/"):
            return label
        return f"{mark}[{label}]({os.path.relpath(linked, Path(page).parent)}{anchor or ''})"

    return _LINK.sub(relink, text)
