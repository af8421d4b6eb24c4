CREATE TABLE authors (
    id serial PRIMARY KEY,
    name text NOT NULL UNIQUE
);
INSERT INTO authors (name) SELECT DISTINCT author FROM entries;

ALTER TABLE entries ADD COLUMN author_id integer REFERENCES authors;
UPDATE entries SET author_id = authors.id FROM authors WHERE authors.name = entries.author;
ALTER TABLE entries ALTER COLUMN author_id SET NOT NULL;
ALTER TABLE entries DROP COLUMN author;
