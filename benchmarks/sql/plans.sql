-- How often each statement that this session prepared ran by which kind of plan.
SELECT statement, generic_plans, custom_plans
  FROM pg_prepared_statements
 WHERE NOT from_sql
