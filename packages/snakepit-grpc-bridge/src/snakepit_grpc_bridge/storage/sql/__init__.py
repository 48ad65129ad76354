"""The storages that are databases: SQLite and PostgreSQL. Loaded only when one is opened."""
