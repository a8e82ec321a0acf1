-- One of everything that a definition can have; read by tests/support/verification.py.
CREATE ROLE "{role}" NOLOGIN;
CREATE SCHEMA studio;
CREATE SCHEMA lifeboat;
CREATE TABLE lifeboat.backups (id int);
CREATE TABLE public.plain (a int);

CREATE TYPE studio.mood AS ENUM ('happy', 'sad');
ALTER TYPE studio.mood ADD VALUE 'calm' BEFORE 'sad';
CREATE DOMAIN studio.code AS varchar(20) DEFAULT 'x' CONSTRAINT known CHECK (VALUE IN ('x', 'y')) NOT NULL;
CREATE TYPE studio.pair AS (left_part int, right_part text);
CREATE TYPE studio.span AS RANGE (subtype = numeric);
CREATE COLLATION studio.nat FROM "C";

CREATE TABLE studio.characters (
    id bigint GENERATED ALWAYS AS IDENTITY (START 10 INCREMENT 5) PRIMARY KEY,
    name text NOT NULL COLLATE studio.nat UNIQUE,
    gone int,
    state varchar(10) DEFAULT 'new' CHECK (state IN ('new', 'done')),
    age int CHECK (age BETWEEN 0 AND 900 AND age <> 7),
    mood studio.mood DEFAULT 'sad',
    doubled int GENERATED ALWAYS AS (age * 2) STORED,
    code studio.code,
    pair studio.pair,
    span studio.span,
    seen timestamptz, weight float8, portrait bytea, money money, tags text[] DEFAULT ARRAY['a']::varchar[]
) WITH (fillfactor = 90);
ALTER TABLE studio.characters DROP COLUMN gone;
CREATE TABLE studio.segments (
    id serial PRIMARY KEY, character_id bigint REFERENCES studio.characters ON DELETE CASCADE,
    body text, note text,
    CONSTRAINT shift CHECK ((id > 0 OR note IS NULL) AND id NOT BETWEEN -5 AND -1 AND true)
);
CREATE INDEX lower_body ON studio.segments (lower(note)) WHERE note IN ('a', 'b') AND id BETWEEN 1 AND 5;
CREATE STATISTICS studio.correlated ON id, character_id FROM studio.segments;
CREATE UNLOGGED TABLE studio.scratchpad (a int);
CREATE TABLE studio.nothing ();
CREATE TABLE studio.parent (a int, b text);
CREATE TABLE studio.child (c date) INHERITS (studio.parent);
ALTER TABLE studio.parent ADD COLUMN late int;
CREATE TABLE studio.events (at date NOT NULL, kind varchar, id int REFERENCES studio.segments, PRIMARY KEY (at, kind))
    PARTITION BY LIST (kind);
CREATE TABLE studio.events_a PARTITION OF studio.events FOR VALUES IN ('a') PARTITION BY RANGE (at);
CREATE TABLE studio.events_a_26 PARTITION OF studio.events_a FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE studio.events_rest PARTITION OF studio.events DEFAULT;
CREATE INDEX events_id ON studio.events (id);
CREATE TABLE studio.pointer (at date, kind varchar, FOREIGN KEY (at, kind) REFERENCES studio.events);
CREATE SEQUENCE studio.counter AS int MINVALUE 5 MAXVALUE 900 CYCLE CACHE 3;

CREATE VIEW studio.adults AS
    SELECT c.id, c.name, CASE WHEN c.state IN ('new', 'x') THEN 1 WHEN c.age BETWEEN 1 AND 2 AND c.id = 1 THEN 2 END AS k
    FROM studio.characters c WHERE c.age NOT BETWEEN 1 AND 17 AND c.state <> ALL (ARRAY['p', 'q']::varchar[]);
CREATE VIEW studio.adults_with_segments WITH (security_barrier) AS
    SELECT a.*, s.note FROM studio.adults a JOIN studio.segments s ON s.character_id = a.id
    LEFT JOIN studio.segments t USING (note) WHERE EXISTS (SELECT FROM studio.events e WHERE e.id = s.id);
CREATE MATERIALIZED VIEW studio.totals AS SELECT count(*) AS n FROM studio.segments;
CREATE UNIQUE INDEX totals_n ON studio.totals (n);

CREATE FUNCTION studio.older(c studio.characters, years int DEFAULT 1 + 2) RETURNS int LANGUAGE sql STABLE COST 7
    AS $$ SELECT c.age + years WHERE 'a' IN ('b', 'c') $$;
CREATE FUNCTION studio.atomic(v varchar[] DEFAULT ARRAY['x', 'y']::text[]) RETURNS bigint LANGUAGE sql
    BEGIN ATOMIC SELECT count(*) FROM studio.segments WHERE note IN ('a', 'b') AND id BETWEEN 1 AND 3 AND true; END;
CREATE PROCEDURE studio.nothing_done(INOUT a int) LANGUAGE plpgsql SET work_mem = '1MB' AS $$ BEGIN a := 1; END $$;
CREATE FUNCTION studio.on_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE FUNCTION studio.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$;
CREATE AGGREGATE studio.total(int) (sfunc = int4pl, stype = int, initcond = '0');
CREATE OPERATOR studio.@@@ (leftarg = int, rightarg = int, function = int4pl);
CREATE CAST (studio.pair AS text) WITH INOUT;

CREATE TRIGGER changed BEFORE UPDATE ON studio.segments FOR EACH ROW WHEN (OLD.note IN ('a', 'b') AND OLD.id BETWEEN 1 AND 9 AND true)
    EXECUTE FUNCTION studio.on_change('it''s');
CREATE TRIGGER logged AFTER INSERT ON studio.events FOR EACH ROW EXECUTE FUNCTION studio.on_change();
ALTER TABLE studio.segments ENABLE ALWAYS TRIGGER changed;
CREATE EVENT TRIGGER "{role}_ddl" ON ddl_command_end WHEN TAG IN ('DROP FUNCTION') EXECUTE FUNCTION studio.on_ddl();
CREATE RULE quiet AS ON DELETE TO studio.adults WHERE OLD.id BETWEEN 1 AND 3 AND true DO INSTEAD NOTHING;
ALTER TABLE studio.segments ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON studio.segments TO "{role}" USING (note IN ('a', 'b') AND (id BETWEEN 1 AND 3 AND true));
CREATE PUBLICATION "{role}_pub" FOR TABLE studio.segments (id, body) WHERE (id BETWEEN 1 AND 3 AND true), studio.pointer;
CREATE FOREIGN DATA WRAPPER "{role}_fdw" OPTIONS (a '1');
CREATE SERVER "{role}_server" FOREIGN DATA WRAPPER "{role}_fdw" OPTIONS (b '2', a '1');
CREATE FOREIGN TABLE studio.elsewhere (a int OPTIONS (x '1')) SERVER "{role}_server" OPTIONS (t 'x');

GRANT USAGE ON SCHEMA studio TO "{role}";
GRANT SELECT, INSERT ON studio.segments TO "{role}" WITH GRANT OPTION;
GRANT UPDATE (name) ON studio.characters TO "{role}";
GRANT SELECT ON studio.totals TO PUBLIC;
REVOKE ALL ON FUNCTION studio.atomic FROM PUBLIC;
GRANT USAGE ON SEQUENCE studio.counter TO "{role}";
ALTER TABLE studio.parent OWNER TO "{role}";
ALTER DEFAULT PRIVILEGES IN SCHEMA studio GRANT SELECT ON TABLES TO "{role}";

INSERT INTO studio.characters (name, age, pair, span, seen, weight, portrait, money)
    SELECT 'n' || g, 10 + g, ROW(g, 'it''s "x", ' || g)::studio.pair, studio.span(g, g + 1), '2026-01-01 10:00+02', g / 3.0, '\x00ff', g
    FROM generate_series(1, 50) g;
INSERT INTO studio.segments (character_id, body, note)
    SELECT 10 + 5 * (g % 50), (SELECT string_agg(md5(g::text || i), '') FROM generate_series(1, 100) i), CASE g % 3 WHEN 0 THEN 'a' END
    FROM generate_series(1, 300) g;
INSERT INTO studio.scratchpad SELECT generate_series(1, 9);
INSERT INTO studio.parent VALUES (1, 'p', 2), (1, 'p', 2);
INSERT INTO studio.child (a, b, c, late) VALUES (2, 'c', '2026-05-05', 3);
INSERT INTO studio.events SELECT '2026-02-01'::date + g, CASE g % 2 WHEN 0 THEN 'a' ELSE 'b' END, g FROM generate_series(1, 100) g;
REFRESH MATERIALIZED VIEW studio.totals;
INSERT INTO studio.segments (note) VALUES ('after the view was refreshed');
SELECT lo_from_bytea(0, '\x0102');
