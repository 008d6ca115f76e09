"""Statements, plans, schema, migrations, replicas and crashes."""
