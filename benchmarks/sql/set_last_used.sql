-- Set last_used_at of each token to a random time of the last $1 seconds, or to NULL.
UPDATE asyncsvc.api_token
   SET last_used_at = statement_timestamp() - random() * make_interval(secs => $1)
