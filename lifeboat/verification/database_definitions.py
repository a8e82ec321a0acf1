"""Catalog queries for the definitions of all but tables: schemas, functions, types, privileges and what is rare.

Columns and rules as in relation_definitions.
"""

# ruff: noqa: S608 - the queries are put together from constants of these modules only

from lifeboat.verification.fragments import not_member, sorted_grants, sorted_list

_INCLUDED = "n.nspname = ANY (%(schemas)s)"
_FUNCTION_NAME = "n.nspname || '.' || p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')'"
_TYPE_NAME = "n.nspname || '.' || t.typname"

SCHEMAS = f"SELECT 'schema', n.nspname, NULL, NULL FROM pg_namespace n WHERE {_INCLUDED}"

# The source is a fact, not an expression: canonical() must not touch it.
FUNCTIONS = f"""
SELECT CASE p.prokind WHEN 'p' THEN 'procedure' ELSE 'function' END, {_FUNCTION_NAME}, jsonb_build_object(
    'kind', p.prokind,
    'language', l.lanname,
    'result', pg_get_function_result(p.oid),
    'source', p.prosrc,
    'library', p.probin,
    'volatility', p.provolatile, 'strict', p.proisstrict, 'leakproof', p.proleakproof,
    'security_definer', p.prosecdef, 'parallel', p.proparallel, 'cost', p.procost, 'rows', p.prorows,
    'support', p.prosupport::text,
    'settings', {sorted_list("p.proconfig")},
    'transforms', (SELECT jsonb_agg(format_type(o, NULL)) FROM unnest(p.protrftypes) o)
)::text, ARRAY[pg_get_function_arguments(p.oid), pg_get_function_sqlbody(p.oid)]
FROM pg_proc p
JOIN pg_namespace n ON n.oid = p.pronamespace
JOIN pg_language l ON l.oid = p.prolang
WHERE p.prokind <> 'a' AND {_INCLUDED} AND {not_member("pg_proc", "p.oid")}
"""

AGGREGATES = f"""
SELECT 'aggregate', {_FUNCTION_NAME}, jsonb_build_object(
    'kind', a.aggkind, 'direct_arguments', a.aggnumdirectargs, 'parallel', p.proparallel,
    'result', pg_get_function_result(p.oid),
    'state', format_type(a.aggtranstype, NULL), 'state_size', a.aggtransspace, 'initial', a.agginitval,
    'transition', a.aggtransfn::text, 'final', a.aggfinalfn::text, 'combine', a.aggcombinefn::text,
    'serial', a.aggserialfn::text, 'deserial', a.aggdeserialfn::text,
    'final_extra', a.aggfinalextra, 'final_modify', a.aggfinalmodify,
    'moving_state', CASE WHEN a.aggmtranstype <> 0 THEN format_type(a.aggmtranstype, NULL) END,
    'moving_size', a.aggmtransspace, 'moving_initial', a.aggminitval,
    'moving_transition', a.aggmtransfn::text, 'moving_inverse', a.aggminvtransfn::text,
    'moving_final', a.aggmfinalfn::text, 'moving_extra', a.aggmfinalextra, 'moving_modify', a.aggmfinalmodify,
    'sort_operator', CASE WHEN a.aggsortop <> 0 THEN a.aggsortop::regoperator::text END
)::text, ARRAY[pg_get_function_arguments(p.oid)]
FROM pg_proc p
JOIN pg_namespace n ON n.oid = p.pronamespace
JOIN pg_aggregate a ON a.aggfnoid = p.oid
WHERE {_INCLUDED} AND {not_member("pg_proc", "p.oid")}
"""

# Left out: row types of tables, array types, multiranges - each follows from another object.
_OWN_TYPE = f"""{_INCLUDED} AND {not_member("pg_type", "t.oid")} AND t.typtype <> 'm'
    AND NOT EXISTS (SELECT FROM pg_class r WHERE r.oid = t.typrelid AND r.relkind <> 'c')
    AND NOT EXISTS (SELECT FROM pg_type element WHERE element.typarray = t.oid)"""

TYPES = f"""
SELECT CASE t.typtype WHEN 'd' THEN 'domain' ELSE 'type' END, {_TYPE_NAME}, jsonb_build_object(
    'kind', t.typtype,
    'labels', (SELECT jsonb_agg(enumlabel ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = t.oid),
    'base', CASE WHEN t.typbasetype <> 0 THEN format_type(t.typbasetype, t.typtypmod) END,
    'not_null', t.typnotnull,
    'collation', CASE WHEN t.typcollation <> 0 THEN t.typcollation::regcollation::text END,
    'attributes', (SELECT jsonb_agg(jsonb_build_array(a.attname, format_type(a.atttypid, a.atttypmod),
                                    a.attcollation::regcollation::text) ORDER BY a.attnum)
                   FROM pg_attribute a
                   WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped),
    'range', (SELECT jsonb_build_array(format_type(r.rngsubtype, NULL), r.rngcollation::regcollation::text,
                     (pg_identify_object('pg_opclass'::regclass, r.rngsubopc, 0)).identity,
                     r.rngcanonical::text, r.rngsubdiff::text, format_type(r.rngmultitypid, NULL))
              FROM pg_range r WHERE r.rngtypid = t.oid),
    'base_type', CASE WHEN t.typtype = 'b' THEN jsonb_build_array(t.typinput::text, t.typoutput::text,
        t.typreceive::text, t.typsend::text, t.typmodin::text, t.typmodout::text, t.typanalyze::text,
        t.typsubscript::text, t.typlen, t.typbyval, t.typalign, t.typstorage, t.typcategory, t.typispreferred,
        t.typdelim, t.typdefault, format_type(nullif(t.typelem, 0), NULL)) END
)::text, pg_get_expr(t.typdefaultbin, 0) || ARRAY(
    SELECT k.conname || ' ' || pg_get_constraintdef(k.oid) FROM pg_constraint k
    WHERE k.contypid = t.oid AND k.contype <> 'n' ORDER BY k.conname COLLATE "C")
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE {_OWN_TYPE}
"""

EVENT_TRIGGERS = f"""
SELECT 'event trigger', t.evtname, jsonb_build_object(
    'event', t.evtevent, 'function', t.evtfoid::regprocedure::text, 'enabled', t.evtenabled,
    'tags', {sorted_list("t.evttags")}
)::text, NULL
FROM pg_event_trigger t WHERE {not_member("pg_event_trigger", "t.oid")}
"""

# Flags of a publication differ between major versions: all columns but the identity are facts.
PUBLICATIONS = f"""
SELECT 'publication', p.pubname, jsonb_build_object(
    'flags', to_jsonb(p) - 'oid' - 'pubname' - 'pubowner',
    'schemas', (SELECT {sorted_list("array_agg(s.pnnspid::regnamespace::text)")}
                FROM pg_publication_namespace s WHERE s.pnpubid = p.oid)
)::text, ARRAY(
    SELECT concat_ws(' ', r.prrelid::regclass::text, (
        SELECT {sorted_list("array_agg(a.attname::text)")}::text
        FROM pg_attribute a WHERE a.attrelid = r.prrelid AND a.attnum = ANY (r.prattrs)
    ), pg_get_expr(r.prqual, r.prrelid))
    FROM pg_publication_rel r WHERE r.prpubid = p.oid ORDER BY r.prrelid::regclass::text COLLATE "C")
FROM pg_publication p
"""

FOREIGN_WRAPPERS = f"""
SELECT 'foreign-data wrapper', f.fdwname, jsonb_build_object(
    'handler', f.fdwhandler::regproc::text, 'validator', f.fdwvalidator::regproc::text,
    'options', {sorted_list("f.fdwoptions")}
)::text, NULL
FROM pg_foreign_data_wrapper f WHERE {not_member("pg_foreign_data_wrapper", "f.oid")}
"""

FOREIGN_SERVERS = f"""
SELECT 'foreign server', s.srvname, jsonb_build_object(
    'wrapper', f.fdwname, 'type', s.srvtype, 'version', s.srvversion, 'options', {sorted_list("s.srvoptions")}
)::text, NULL
FROM pg_foreign_server s JOIN pg_foreign_data_wrapper f ON f.oid = s.srvfdw
"""

DEFAULT_PRIVILEGES = f"""
SELECT 'default privileges', concat_ws(' ', pg_get_userbyid(d.defaclrole), d.defaclobjtype, n.nspname),
    jsonb_build_object('grants', {sorted_grants("d.defaclacl", "r", "d.defaclrole")})::text, NULL
FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace
WHERE n.nspname IS NULL OR {_INCLUDED}
"""


def _other(catalog: str) -> str:
    # Only objects made after initdb; their presence is compared, not their properties.
    return f"""SELECT i.type, i.identity, NULL, NULL
FROM {catalog} o, pg_identify_object('{catalog}'::regclass, o.oid, 0) i
WHERE o.oid >= 16384 AND (i.schema IS NULL OR i.schema = ANY (%(schemas)s)) AND {not_member(catalog, "o.oid")}"""


_RARE = (
    *("pg_cast", "pg_collation", "pg_conversion", "pg_language", "pg_opclass", "pg_operator", "pg_opfamily"),
    *("pg_transform", "pg_ts_config", "pg_ts_dict", "pg_ts_parser", "pg_ts_template"),
)
OTHERS = "\nUNION ALL\n".join(_other(catalog) for catalog in _RARE)


def _access(name: str, owner: str, grants: str, source: str) -> str:
    facts = f"jsonb_build_object('owner', pg_get_userbyid({owner}), 'grants', {grants})"
    return f"SELECT 'access', {name}, {facts}::text, NULL FROM {source}"


_RELATION_GRANTS = f"""jsonb_build_array(
    CASE c.relkind WHEN 'S' THEN {sorted_grants("c.relacl", "s", "c.relowner")}
                   ELSE {sorted_grants("c.relacl", "r", "c.relowner")} END,
    (SELECT jsonb_object_agg(a.attname, {sorted_grants("a.attacl", "c", "c.relowner")})
     FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attacl IS NOT NULL AND NOT a.attisdropped))"""

# Owners and privileges are objects of their own, so that a report names them and a restore without roles can skip them.
ACCESS = "\nUNION ALL\n".join(
    (
        _access("'schema ' || n.nspname", "n.nspowner", sorted_grants("n.nspacl", "n", "n.nspowner"),
                f"pg_namespace n WHERE {_INCLUDED}"),
        _access("'relation ' || n.nspname || '.' || c.relname", "c.relowner", _RELATION_GRANTS,
                f"""pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                    WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm', 'S') AND c.relpersistence <> 't' AND {_INCLUDED}
                      AND {not_member("pg_class", "c.oid")}"""),
        _access(f"'function ' || {_FUNCTION_NAME}", "p.proowner", sorted_grants("p.proacl", "f", "p.proowner"),
                f"""pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
                    WHERE {_INCLUDED} AND {not_member("pg_proc", "p.oid")}"""),
        _access(f"'type ' || {_TYPE_NAME}", "t.typowner", sorted_grants("t.typacl", "T", "t.typowner"),
                f"pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE {_OWN_TYPE}"),
        _access("'foreign server ' || s.srvname", "s.srvowner", sorted_grants("s.srvacl", "S", "s.srvowner"),
                "pg_foreign_server s"),
        _access("'publication ' || p.pubname", "p.pubowner", "NULL::jsonb", "pg_publication p"),
    )
)  # fmt: skip

QUERIES = (
    *(SCHEMAS, FUNCTIONS, AGGREGATES, TYPES, EVENT_TRIGGERS, PUBLICATIONS, FOREIGN_WRAPPERS, FOREIGN_SERVERS),
    *(DEFAULT_PRIVILEGES, OTHERS, ACCESS),
)
