"""The operations of the soak, which together call every public method.

Some operations delete, so the stored data stays bounded, and the load is constant over the run. The
soak fails if no call of one of these methods succeeds; `tests/every_method/test_registry.py` fails
if a method has no operation.
"""

from benchmarks.reliability.operations import (  # noqa: F401 - each registers its operations
    conversations,
    facade,
    records,
    tokens,
)
from benchmarks.reliability.operations.conversations import OLD
from benchmarks.reliability.operations.registry import OPERATIONS, Operation, all_calls

__all__ = ["OLD", "OPERATIONS", "Operation", "all_calls"]
