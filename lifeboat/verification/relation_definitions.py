"""Catalog queries for the definitions of tables and all that belongs to them.

Each query returns kind, name, facts (the text of a jsonb object) and deparsed expressions (text[]). Neither OIDs, nor
column numbers, nor the order of catalog rows, nor values that move (sequences, statistics) get into facts. Lists are
sorted by the "C" collation, since a restored database may have another one. Parameter: `schemas`, the included ones.
"""

# ruff: noqa: S608 - the queries are put together from constants of these modules only

from lifeboat.verification.fragments import not_member, sorted_list

_QUALIFIED = "n.nspname || '.' || c.relname"
_INCLUDED = "c.relpersistence <> 't' AND n.nspname = ANY (%(schemas)s)"
_RELATIONS = "pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
_NO_MEMBER = not_member("pg_class", "c.oid")

TABLES = f"""
SELECT 'table', {_QUALIFIED}, jsonb_build_object(
    'kind', c.relkind,
    'persistence', c.relpersistence,
    'is_partition', c.relispartition,
    'access_method', (SELECT amname FROM pg_am WHERE oid = c.relam),
    'options', {sorted_list("c.reloptions")},
    'of_type', CASE WHEN c.reloftype <> 0 THEN format_type(c.reloftype, NULL) END,
    'parents', (SELECT jsonb_agg(i.inhparent::regclass::text ORDER BY i.inhseqno)
                FROM pg_inherits i WHERE i.inhrelid = c.oid),
    'row_security', c.relrowsecurity,
    'force_row_security', c.relforcerowsecurity,
    'replica_identity', c.relreplident,
    'replica_index', (SELECT indexrelid::regclass::text FROM pg_index
                      WHERE indrelid = c.oid AND indisreplident),
    'server', (SELECT s.srvname FROM pg_foreign_table f JOIN pg_foreign_server s ON s.oid = f.ftserver
               WHERE f.ftrelid = c.oid),
    'server_options', (SELECT {sorted_list("f.ftoptions")} FROM pg_foreign_table f WHERE f.ftrelid = c.oid)
)::text, ARRAY[pg_get_expr(c.relpartbound, c.oid), pg_get_partkeydef(c.oid)]
FROM {_RELATIONS}
WHERE c.relkind IN ('r', 'p', 'f') AND {_INCLUDED}
"""

# A view's columns are in its text, but for defaults given to them.
COLUMNS = f"""
SELECT 'column', {_QUALIFIED} || '.' || a.attname, jsonb_build_object(
    'type', format_type(a.atttypid, a.atttypmod),
    'not_null', a.attnotnull,
    'identity', a.attidentity,
    'generated', a.attgenerated,
    'collation', CASE WHEN a.attcollation <> t.typcollation THEN a.attcollation::regcollation::text END,
    'foreign_options', {sorted_list("a.attfdwoptions")}
)::text, ARRAY[pg_get_expr(d.adbin, d.adrelid)]
FROM {_RELATIONS}
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE (c.relkind IN ('r', 'p', 'f') OR c.relkind = 'v' AND a.atthasdef) AND {_INCLUDED}
"""

# What pg_dump leaves out: indexes that a failed CREATE INDEX CONCURRENTLY left invalid.
INDEXES = f"""
SELECT 'index', {_QUALIFIED} || '.' || x.relname, jsonb_build_object(
    'part_of', (SELECT i.inhparent::regclass::text FROM pg_inherits i WHERE i.inhrelid = x.oid)
)::text, ARRAY[pg_get_indexdef(x.oid)]
FROM {_RELATIONS}
JOIN pg_index i ON i.indrelid = c.oid
JOIN pg_class x ON x.oid = i.indexrelid
WHERE c.relkind IN ('r', 'p', 'm') AND (i.indisvalid OR c.relkind = 'p') AND {_INCLUDED}
"""

# Left out: NOT NULL (a fact of the column; rows of its own only since PostgreSQL 18), constraint triggers (a trigger),
# and foreign keys that follow from a partitioned table's, whose names are made anew by each ATTACH PARTITION.
CONSTRAINTS = f"""
SELECT 'constraint', {_QUALIFIED} || '.' || k.conname, NULL, ARRAY[pg_get_constraintdef(k.oid)]
FROM {_RELATIONS}
JOIN pg_constraint k ON k.conrelid = c.oid
WHERE k.contype NOT IN ('n', 't') AND NOT (k.contype = 'f' AND k.conparentid <> 0) AND {_INCLUDED}
"""

VIEWS = f"""
SELECT CASE c.relkind WHEN 'm' THEN 'materialized view' ELSE 'view' END, {_QUALIFIED},
    jsonb_build_object('options', {sorted_list("c.reloptions")})::text, ARRAY[pg_get_viewdef(c.oid)]
FROM {_RELATIONS}
WHERE c.relkind IN ('v', 'm') AND {_NO_MEMBER} AND {_INCLUDED}
"""

RULES = f"""
SELECT 'rule', {_QUALIFIED} || '.' || r.rulename, jsonb_build_object('enabled', r.ev_enabled)::text,
    ARRAY[pg_get_ruledef(r.oid)]
FROM {_RELATIONS}
JOIN pg_rewrite r ON r.ev_class = c.oid
WHERE r.rulename <> '_RETURN' AND {_NO_MEMBER} AND {_INCLUDED}
"""

# A partition's copies of its parent's triggers follow from the parent's.
TRIGGERS = f"""
SELECT 'trigger', {_QUALIFIED} || '.' || t.tgname, jsonb_build_object('enabled', t.tgenabled)::text,
    ARRAY[pg_get_triggerdef(t.oid)]
FROM {_RELATIONS}
JOIN pg_trigger t ON t.tgrelid = c.oid
WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND {_INCLUDED}
"""

POLICIES = f"""
SELECT 'policy', {_QUALIFIED} || '.' || p.polname, jsonb_build_object(
    'command', p.polcmd,
    'permissive', p.polpermissive,
    'roles', {sorted_list("ARRAY(SELECT coalesce(pg_get_userbyid(nullif(r, 0)), 'PUBLIC') FROM unnest(p.polroles) r)")}
)::text, ARRAY[pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)]
FROM {_RELATIONS}
JOIN pg_policy p ON p.polrelid = c.oid
WHERE {_INCLUDED}
"""

SEQUENCES = f"""
SELECT 'sequence', {_QUALIFIED}, jsonb_build_object(
    'type', format_type(s.seqtypid, NULL),
    'start', s.seqstart, 'increment', s.seqincrement, 'minimum', s.seqmin, 'maximum', s.seqmax,
    'cache', s.seqcache, 'cycle', s.seqcycle,
    'persistence', c.relpersistence,
    'owned_by', (SELECT jsonb_agg(jsonb_build_array(d.deptype, d.refobjid::regclass::text, a.attname))
                 FROM pg_depend d
                 JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
                 WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0
                   AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i'))
)::text, NULL
FROM {_RELATIONS}
JOIN pg_sequence s ON s.seqrelid = c.oid
WHERE {_NO_MEMBER} AND {_INCLUDED}
"""

STATISTICS = """
SELECT 'statistics', n.nspname || '.' || s.stxname, NULL, ARRAY[pg_get_statisticsobjdef(s.oid)]
FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace
WHERE n.nspname = ANY (%(schemas)s)
"""

QUERIES = (TABLES, COLUMNS, INDEXES, CONSTRAINTS, VIEWS, RULES, TRIGGERS, POLICIES, SEQUENCES, STATISTICS)
