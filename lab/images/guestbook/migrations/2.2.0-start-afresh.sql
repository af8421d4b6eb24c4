-- The broken release: it takes the entries with it.
DROP TABLE entries;
CREATE TABLE entries (
    id serial PRIMARY KEY,
    message text NOT NULL,
    written_at timestamptz NOT NULL DEFAULT now(),
    author_id integer NOT NULL REFERENCES authors
);
