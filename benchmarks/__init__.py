"""Performance measurements of the library: `python -m benchmarks`.

- `suites/` has one module per subject. `run(bench)` measures, and the docstring is the subject's
  text in RESULTS.md.
- `contenders/` has one module per implementation that a suite compares.
- `bench` is the context of a suite: `contest` compares contenders, and `counts` and `target` report
  other values. `measuring` runs contenders in turns, `child_process` runs each in its own process.
- `data` and `sql/generator.sql` generate the conversations that all contenders store.
- `results` formats the results, for the terminal and for RESULTS.md; `charts` draws them.
- `server`, `standby` and `pgbouncer` start the measured servers.

To add a contender, add it to the `contenders` of a contest: a name and a coroutine function. To add
a subject, add a module with `run` and a docstring to `suites/`, and its name to `suites.SUITES`.

`benchmarks.reliability` tests the library under crashes, cancellations and lost connections.
"""
