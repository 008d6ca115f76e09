-- Rewrite the sums of usage at their smallest size: the first roll-up of a store updates them many times.
VACUUM (FULL, ANALYZE) asyncsvc.usage_bucket, asyncsvc.usage_quarter_hour, asyncsvc.usage_user_month,
    asyncsvc.usage_user, asyncsvc.usage_ledger
