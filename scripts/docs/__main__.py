"""Write the generated pages of `docs/`, or check that they are up to date."""

from __future__ import annotations

import argparse
import sys

from scripts.docs import reference, root_files, sql
from scripts.docs.root_files import ROOT


def main() -> int:
    """Write the pages that differ. With --check, print their names and return 1 if there is one."""
    parser = argparse.ArgumentParser(prog="python -m scripts.docs", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if stale")
    check = parser.parse_args().check
    stale = {
        name: text
        for module in (root_files, reference, sql)
        for name, text in module.pages().items()
        if not (ROOT / name).exists() or (ROOT / name).read_text(encoding="utf-8") != text
    }
    for name, text in stale.items():
        print(f"{name}: {'stale' if check else 'written'}")
        if not check:
            (ROOT / name).write_text(text, encoding="utf-8")
    if stale and check:
        print("Run `python -m scripts.docs` and commit the pages.", file=sys.stderr)
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
