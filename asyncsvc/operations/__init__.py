"""Work on the database as a whole: migrations, maintenance, the doctor and query plans."""
