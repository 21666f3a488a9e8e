"""The truth: galleries, persons, faces, API keys, in SQLite or PostgreSQL.

    database  migrate                        connection, transactions, schema
    models  records                          rows as SQLAlchemy knows them, values as everyone else does
    galleries  people  faces  changes        repositories: functions that take a session, one noun a file
    idempotency  api_keys  meta

Unaware of the index: what keeps them equal is `recognition.gallery_sync`.
"""
