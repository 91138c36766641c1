"""A program that works with a database while it is saved.

usage: writer.py MODE DATABASE [...]

    fill DATABASE ROWS          makes a database in WAL mode, closes it
    commit DATABASE PROGRESS JOURNAL
                                commits numbered transactions until it is killed; the number of each
                                goes to the file PROGRESS when it is committed
    change DATABASE SEED die    changes one row of a hundred in WAL mode; dies without closing
    change DATABASE SEED close  the same, and carries the log over into the database
"""

import os
import random
import sqlite3
import sys

# Transactions that the database keeps; older ones are deleted, so that it does not grow.
KEPT = 500

mode, path, *rest = sys.argv[1:]
database = sqlite3.connect(path, isolation_level=None)
database.execute("PRAGMA journal_mode = WAL")
database.execute("PRAGMA synchronous = OFF")
if mode == "fill":
    noise = random.Random(1)
    database.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, bytes BLOB)")
    database.execute("BEGIN")
    for _ in range(int(rest[0])):
        database.execute("INSERT INTO t (bytes) VALUES (?)", (noise.randbytes(400),))
    database.execute("COMMIT")
    database.close()
elif mode == "commit":
    noise = random.Random(2)
    database.execute(f"PRAGMA journal_mode = {rest[1]}")
    database.execute("PRAGMA wal_autocheckpoint = 50")
    database.execute("CREATE TABLE parts (n INTEGER, part INTEGER, bytes BLOB, PRIMARY KEY (n, part))")
    database.execute("CREATE TABLE last (n INTEGER)")
    database.execute("INSERT INTO last VALUES (0)")
    with open(rest[0], "w") as progress:
        n = 0
        while True:
            n += 1
            database.execute("BEGIN IMMEDIATE")
            for part in range(3):
                row = (n, part, noise.randbytes(noise.randrange(2000)))
                database.execute("INSERT INTO parts VALUES (?, ?, ?)", row)
            old = n - noise.randrange(KEPT)
            database.execute("UPDATE parts SET bytes = ? WHERE n = ?", (noise.randbytes(900), old))
            database.execute("DELETE FROM parts WHERE n <= ?", (n - KEPT,))
            database.execute("UPDATE last SET n = ?", (n,))
            database.execute("COMMIT")
            progress.write(f"{n}\n")
            progress.flush()
elif mode == "change":
    noise = random.Random(int(rest[0]))
    database.execute("PRAGMA wal_autocheckpoint = 0")
    (rows,) = database.execute("SELECT count(*) FROM t").fetchone()
    database.execute("BEGIN")
    for n in noise.sample(range(1, rows + 1), rows // 100):
        database.execute("UPDATE t SET bytes = ? WHERE n = ?", (noise.randbytes(400), n))
    database.execute("COMMIT")
    if rest[1] == "die":
        os._exit(0)
    database.close()
else:
    sys.exit(f"unknown mode {mode}")
