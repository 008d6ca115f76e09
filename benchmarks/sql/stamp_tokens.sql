-- Set last_used_at of each token to a random time of the last 60 seconds.
UPDATE asyncsvc.api_token
   SET last_used_at = statement_timestamp() - random() * interval '60 seconds'
