"""A run of writers, maintenance and checkers at once.

Writers change the conversations of two tenants in every way. At the same time maintenance rolls up
and is killed, zones are declared, and checkers read statistics. A checker reads its statistics and
the conversations in one snapshot; the model counts these conversations. The model of the committed
activity is compared at the end.
"""
