-- Clear last_used_at of each token.
UPDATE asyncsvc.api_token
   SET last_used_at = NULL
