-- The number of executions of this session's prepared statements, by kind of plan.
SELECT statement, generic_plans, custom_plans
  FROM pg_prepared_statements
 WHERE NOT from_sql
