-- Stamps each token as used within the last interval.
UPDATE asyncsvc.api_token
   SET last_used_at = statement_timestamp() - random() * interval '60 seconds'
