"""The figures that the project claims, measured by one command: `python -m benchmarks`.

- A module a suite: `start`, `pool`, `verify`, `append`, `models`, `listing` (with `plans`),
  `stats`, `importing` and `memory` (their works are in `child`), `search` (its text is of
  `language`, its right answers of `plainly`), `row_level_security`. Each says
  how much it does at which scale.
- `contenders/`: what the library is compared with, a module each. `appending` has all their ways
  to append, `data` and `sql/generator.sql` the conversations that all of them store.
- `measuring` lets contenders take turns, `stage` tells what the server did meanwhile.
- `report` prints and keeps, `charts` draws, `results` writes RESULTS.md, with what a person has to
  say from `texts/`.

`benchmarks.reliability` breaks things instead.
"""
