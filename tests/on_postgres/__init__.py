"""With KVASIR_TEST_DATABASE=postgres every data directory of a test has a PostgreSQL database in place of its file."""
