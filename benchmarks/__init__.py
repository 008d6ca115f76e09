"""Performance measurements of the library: `python -m benchmarks`.

- One module per suite: `start`, `pool`, `verify`, `append`, `models`, `listing` (with `plans`),
  `stats`, `importing`, `search`, `sizes`, `retention`, `pooler`, `replicas`, `memory` and
  `row_level_security`. Each module defines its sizes per scale in `SCALES`.
- `contenders/` contains one module per other implementation. `append_contenders` contains the
  append of each of them. `data` and `sql/generator.sql` generate the conversations that all of
  them store.
- `measuring` runs contenders in turns. `contest` adds a checkpoint before the run and counts the
  checkpoints during it. `child_process` measures a call in a process of its own.
- `text_generator` generates the text of the search suite, `reference_search` its expected results.
- `report` collects and prints results, `charts` draws them, `results` writes RESULTS.md with the
  texts of `texts/`.

`benchmarks.reliability` tests the library under crashes, cancellations and lost connections.
"""
