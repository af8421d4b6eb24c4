CREATE TABLE entries (
    id serial PRIMARY KEY,
    author text NOT NULL,
    message text NOT NULL,
    written_at timestamptz NOT NULL DEFAULT now()
);
