"""HTTP: each door turns its protocol into (procedure, input) and the outcome back. No door holds business logic."""
