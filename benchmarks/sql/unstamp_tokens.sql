-- Makes each token one that was never used.
UPDATE asyncsvc.api_token
   SET last_used_at = NULL
