"""All public methods: one entry for each, from which the tests in `every_method` are generated.

A new method needs one entry, in `conversations`, `tokens`, `records`, `budgets` or `facade`. A new
parameter needs a valid value in the `call` of its entry and, if no other method has one of that
name, its invalid values in `bad_values`. If something is missing, `test_registry` says where to add
it.
"""

from tests.support.registry.budgets import BUDGETS
from tests.support.registry.conversations import CONVERSATIONS
from tests.support.registry.facade import FACADE
from tests.support.registry.method import (
    Method,
    Tenant,
    comparable,
    furnish,
    parameters_of,
    public_methods,
)
from tests.support.registry.records import RECORDS
from tests.support.registry.tokens import TOKENS

SERVICE_METHODS = [*CONVERSATIONS, *TOKENS, *RECORDS, *BUDGETS]
METHODS = [*SERVICE_METHODS, *FACADE]
BY_NAME = {method.name: method for method in METHODS}

__all__ = [
    "BY_NAME",
    "METHODS",
    "SERVICE_METHODS",
    "Method",
    "Tenant",
    "comparable",
    "furnish",
    "parameters_of",
    "public_methods",
]
