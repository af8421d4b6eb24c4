"""A guestbook: entries in PostgreSQL, uploads in a folder, no more than a recipe needs to be put to the test.

    GET  /                the page                      POST   /entries          add {"author", "message"}, JSON or form
    GET  /entries.json    all entries, newest first     DELETE /entries/<id>     with "Authorization: Bearer <passphrase>"
    GET  /health          200 when the database answers PUT, GET /uploads/<name> a file, at most 10 MB

The image holds the migrations up to its version; the schema that the queries meet follows from the newest of them.
"""

from __future__ import annotations

import hmac
import html
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import psycopg2  # type: ignore[import-not-found, import-untyped, unused-ignore]

HERE = Path(__file__).parent
MIGRATIONS = sorted((HERE / "migrations").glob("*.sql"))
UPLOADS = HERE / "uploads"
VERSION = os.environ.get("GUESTBOOK_VERSION", "0.0.0")

#: Seconds that the database has to come up before this gives up and leaves it to Swarm to start it again.
DATABASE_PATIENCE = 60.0
LARGEST_BODY = 10 * 1024 * 1024
UPLOAD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

LIST_V1 = "SELECT id, author, message, written_at FROM entries ORDER BY written_at DESC, id DESC"
LIST_V2 = """
    SELECT entries.id, authors.name, message, written_at
    FROM entries JOIN authors ON authors.id = author_id
    ORDER BY written_at DESC, entries.id DESC
"""
ADD_V1 = "INSERT INTO entries (author, message) VALUES (%(author)s, %(message)s) RETURNING id"
ADD_V2 = """
    WITH author AS (
        INSERT INTO authors (name) VALUES (%(author)s)
        ON CONFLICT (name) DO UPDATE SET name = EXCLUDED.name RETURNING id
    )
    INSERT INTO entries (author_id, message) SELECT id, %(message)s FROM author RETURNING id
"""

PAGE = """<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <title>Guestbook</title>
  </head>
  <body>
    <h1>Guestbook</h1>
    <form method="post" action="/entries">
      <label>Name <input name="author" required></label>
      <label>Message <input name="message" required></label>
      <button>Sign</button>
    </form>
    <ul>
{entries}
    </ul>
    <footer>guestbook {version}</footer>
  </body>
</html>
"""


def secret(name: str) -> str:
    """Read the secret that Swarm mounts as `name`."""
    return Path("/run/secrets", name).read_text().strip()


@contextmanager
def database() -> Iterator[Any]:
    """Give a cursor on a connection of its own; commit at the end.

    A connection per request outlives nothing: not a restart of the database, not a restore.
    """
    connection = psycopg2.connect(
        host=os.environ["DB_HOST"],
        dbname=os.environ["DB_NAME"],
        user=os.environ["DB_USER"],
        password=secret("db_password"),
        connect_timeout=5,
    )
    try:
        with connection, connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


def wait_for_database() -> None:
    """Return as soon as the database takes a connection; raise its error when it does not in time."""
    deadline = time.monotonic() + DATABASE_PATIENCE
    while True:
        try:
            with database():
                return
        except psycopg2.OperationalError as error:
            if time.monotonic() > deadline:
                raise
            print(f"waiting for the database: {error}".strip(), file=sys.stderr)
            # A closed port says nothing when it opens.
            time.sleep(0.5)


def migrate() -> None:
    """Bring the schema to this version; what is done is done once, whoever else starts at the same time."""
    with database() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(7)")
        cursor.execute("CREATE TABLE IF NOT EXISTS migrations (name text PRIMARY KEY)")
        cursor.execute("SELECT name FROM migrations")
        done = {name for (name,) in cursor.fetchall()}
        for migration in MIGRATIONS:
            if migration.stem in done:
                continue
            print(f"migrating: {migration.stem}", file=sys.stderr)
            cursor.execute(migration.read_text())
            cursor.execute("INSERT INTO migrations VALUES (%s)", (migration.stem,))


def has_authors() -> bool:
    """Say whether this version's schema has a table of authors."""
    return any(migration.stem == "2.0.0-authors" for migration in MIGRATIONS)


def list_entries() -> list[dict[str, object]]:
    """Return all entries, newest first."""
    with database() as cursor:
        cursor.execute(LIST_V2 if has_authors() else LIST_V1)
        rows = cursor.fetchall()
    return [
        {"id": number, "author": author, "message": message, "written_at": written_at.isoformat()}
        for number, author, message, written_at in rows
    ]


def add_entry(author: str, message: str) -> int:
    """Add an entry and return its number."""
    with database() as cursor:
        cursor.execute(ADD_V2 if has_authors() else ADD_V1, {"author": author, "message": message})
        return int(cursor.fetchone()[0])


def delete_entry(number: int) -> bool:
    """Delete an entry; say whether there was one."""
    with database() as cursor:
        cursor.execute("DELETE FROM entries WHERE id = %s", (number,))
        return bool(cursor.rowcount)


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server_version = f"guestbook/{VERSION}"

    def do_GET(self) -> None:
        if self.path == "/":
            entries = "\n".join(
                f"      <li><b>{html.escape(str(entry['author']))}</b>: {html.escape(str(entry['message']))}</li>"
                for entry in list_entries()
            )
            self.answer(HTTPStatus.OK, PAGE.format(entries=entries, version=html.escape(VERSION)), "text/html")
        elif self.path == "/entries.json":
            self.answer_json(HTTPStatus.OK, list_entries())
        elif self.path == "/health":
            with database() as cursor:
                cursor.execute("SELECT count(*) FROM migrations")
                done = cursor.fetchone()[0]
            self.answer_json(HTTPStatus.OK, {"version": VERSION, "migrations": done})
        elif (upload := self.upload()) and upload.is_file():
            self.answer(HTTPStatus.OK, upload.read_bytes(), "application/octet-stream")
        else:
            self.answer_json(HTTPStatus.NOT_FOUND, {"error": "no such page"})

    def do_POST(self) -> None:
        if self.path != "/entries":
            self.answer_json(HTTPStatus.NOT_FOUND, {"error": "no such page"})
            return
        body = self.body()
        is_json = self.headers.get_content_type() == "application/json"
        try:
            given = json.loads(body) if is_json else {key: value[0] for key, value in parse_qs(body.decode()).items()}
            author, message = str(given["author"]).strip(), str(given["message"]).strip()
        except (ValueError, KeyError, TypeError):
            author = message = ""
        if not author or not message:
            self.answer_json(HTTPStatus.UNPROCESSABLE_ENTITY, {"error": "an entry needs an author and a message"})
            return
        number = add_entry(author, message)
        if is_json:
            self.answer_json(HTTPStatus.CREATED, {"id": number})
        else:
            self.answer(HTTPStatus.SEE_OTHER, "", "text/plain", {"Location": "/"})

    def do_DELETE(self) -> None:
        number = self.path.removeprefix("/entries/")
        bearer = f"Bearer {secret('moderation_passphrase')}"
        self.body()
        if not hmac.compare_digest(self.headers.get("Authorization", "").encode(), bearer.encode()):
            self.answer_json(HTTPStatus.FORBIDDEN, {"error": "only the moderator deletes"})
        elif number.isdecimal() and delete_entry(int(number)):
            self.answer(HTTPStatus.NO_CONTENT, "", "text/plain")
        else:
            self.answer_json(HTTPStatus.NOT_FOUND, {"error": "no such entry"})

    def do_PUT(self) -> None:
        upload, body = self.upload(), self.body()
        if upload is None:
            self.answer_json(HTTPStatus.NOT_FOUND, {"error": "uploads go to /uploads/<name>"})
            return
        upload.write_bytes(body)
        self.answer(HTTPStatus.NO_CONTENT, "", "text/plain")

    def upload(self) -> Path | None:
        name = self.path.removeprefix("/uploads/")
        return UPLOADS / name if self.path.startswith("/uploads/") and UPLOAD_NAME.fullmatch(name) else None

    def body(self) -> bytes:
        length = int(self.headers.get("Content-Length", 0))
        if length > LARGEST_BODY:
            self.close_connection = True
            raise ValueError(f"a body of {length} bytes is more than {LARGEST_BODY}")
        return self.rfile.read(length)

    def answer_json(self, status: HTTPStatus, value: object) -> None:
        self.answer(status, json.dumps(value), "application/json")

    def answer(
        self, status: HTTPStatus, body: str | bytes, content_type: str, headers: dict[str, str] | None = None
    ) -> None:
        data = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        self.send_header("Content-Type", f"{content_type}; charset=utf-8" if isinstance(body, str) else content_type)
        if status is not HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (psycopg2.Error, ValueError) as error:
            print(f"{self.command} {self.path}: {error}".strip(), file=sys.stderr)
            self.close_connection = True
            self.answer_json(HTTPStatus.SERVICE_UNAVAILABLE, {"error": type(error).__name__})


def main() -> None:
    """Serve until SIGTERM."""
    # The first process of a container gets no signal that it has not asked for.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    wait_for_database()
    migrate()
    server = ThreadingHTTPServer(("", 8000), Handler)
    server.daemon_threads = True
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"guestbook {VERSION} answers on port 8000", file=sys.stderr)
    server.serve_forever()


if __name__ == "__main__":
    main()
