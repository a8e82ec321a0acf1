"""Catalog queries for what is neither a table nor in the fingerprint's definitions: (name, value), both text.

Names are of the form `kind name`. A physical copy has the same OIDs, so that values may hold them.
"""

# ruff: noqa: S608 - the queries are put together from constants of this module only

from dataclasses import dataclass


@dataclass(frozen=True)
class FactQuery:
    """One kind of facts. Values that are `hidden` (secrets, digests) are only compared.

    With `changed_only` the fingerprint's definitions tell what comes and goes. Parameter: `schemas`, the fingerprint's.
    """

    title: str
    query: str
    hidden: bool = False
    changed_only: bool = False


_ROLES = """
SELECT 'role ' || rolname, concat_ws(', ',
    CASE WHEN rolcanlogin THEN 'LOGIN' ELSE 'NOLOGIN' END, CASE WHEN rolsuper THEN 'SUPERUSER' END,
    CASE WHEN rolcreaterole THEN 'CREATEROLE' END, CASE WHEN rolcreatedb THEN 'CREATEDB' END,
    CASE WHEN rolreplication THEN 'REPLICATION' END, CASE WHEN rolbypassrls THEN 'BYPASSRLS' END,
    CASE WHEN NOT rolinherit THEN 'NOINHERIT' END, 'CONNECTION LIMIT ' || nullif(rolconnlimit, -1),
    'VALID UNTIL ' || rolvaliduntil)
FROM pg_roles
"""
_PASSWORDS = "SELECT 'password of role ' || rolname, rolpassword FROM pg_authid WHERE rolpassword IS NOT NULL"
# Before PostgreSQL 16 a membership has no grantor of its own, and fewer options.
_MEMBERSHIPS = """
SELECT 'membership of ' || pg_get_userbyid(m.member) || ' in ' || pg_get_userbyid(m.roleid)
    || ', granted by ' || pg_get_userbyid(m.grantor),
    (SELECT string_agg(key || ' ' || value, ', ' ORDER BY key)
     FROM jsonb_each_text(to_jsonb(m)) WHERE key LIKE '%%\\_option')
FROM pg_auth_members m
"""
_SETTINGS = """
SELECT concat_ws(' ', 'setting', split_part(each, '=', 1), 'of role ' || pg_get_userbyid(nullif(s.setrole, 0)),
    'in database ' || d.datname), substr(each, strpos(each, '=') + 1)
FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) each
"""
_DATABASES = """
SELECT 'database ' || datname, concat_ws(', ', 'OWNER ' || pg_get_userbyid(datdba),
    CASE WHEN NOT datallowconn THEN 'no connections' END, CASE WHEN datistemplate THEN 'template' END,
    'CONNECTION LIMIT ' || nullif(datconnlimit, -1), datacl::text)
FROM pg_database
"""
_TABLESPACES = """
SELECT 'tablespace ' || spcname, concat_ws(', ', 'OWNER ' || pg_get_userbyid(spcowner), spcacl::text, spcoptions::text)
FROM pg_tablespace
"""
_EXTENSIONS = """
SELECT 'extension ' || e.extname, concat_ws(', ', e.extversion, 'OWNER ' || pg_get_userbyid(e.extowner),
    'SCHEMA ' || n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
"""
# `lifeboat` is our own, and what is temporary belongs to a session.
_NAMED = "coalesce(i.schema, '') <> 'lifeboat' AND coalesce(i.schema, '') NOT LIKE 'pg\\_temp%%'"


def _of_objects(title: str, value: str, catalog: str) -> str:
    identified = "pg_identify_object(o.classoid, o.objoid, o.objsubid)"
    shared = "pg_identify_object(o.classoid, o.objoid, 0)"
    return f"""
SELECT '{title} ' || concat_ws(' ', i.type, i.identity), {value} FROM pg_{catalog} o, {identified} i WHERE {_NAMED}
UNION ALL
SELECT '{title} ' || concat_ws(' ', i.type, i.identity), {value} FROM pg_sh{catalog} o, {shared} i"""


_COMMENTS = _of_objects("comment on", "o.description", "description")
_LABELS = _of_objects("security label of", "o.provider || ' ' || o.label", "seclabel")
_PARAMETERS = "SELECT 'privileges on parameter ' || parname, paracl::text FROM pg_parameter_acl"
_SLOTS = "SELECT 'replication slot ' || slot_name, slot_type FROM pg_replication_slots WHERE NOT temporary"
_ORIGINS = "SELECT 'replication origin ' || roname, '' FROM pg_replication_origin"
_SUBSCRIPTIONS = """
SELECT concat_ws(' ', 'subscription', s.subname, 'in database ' || d.datname),
    (to_jsonb(s) - 'subskiplsn')::text FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
"""
_USER_MAPPINGS = """
SELECT 'user mapping of ' || coalesce(pg_get_userbyid(nullif(m.umuser, 0)), 'PUBLIC') || ' for server ' || s.srvname,
    m.umoptions::text FROM pg_user_mapping m JOIN pg_foreign_server s ON s.oid = m.umserver
"""
_PREPARED = "SELECT 'prepared transaction ' || gid, prepared::text FROM pg_prepared_xacts"
_FILLED = """
SELECT 'rows of materialized view ' || n.nspname || '.' || c.relname,
    CASE WHEN c.relispopulated THEN 'WITH DATA' ELSE 'WITH NO DATA' END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'm' AND n.nspname = ANY (%(schemas)s)
"""
_INDEXES = """
SELECT 'index ' || n.nspname || '.' || x.relname, 'invalid' FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
JOIN pg_namespace n ON n.oid = x.relnamespace
WHERE NOT i.indisvalid AND x.relkind = 'i' AND n.nspname = ANY (%(schemas)s)
"""
# How things are stored: no part of a definition that a dump's restore must have.
_STORAGE = """
SELECT 'storage of ' || n.nspname || '.' || c.relname, concat_ws(', ', 'TABLESPACE ' || t.spcname, 'USING ' || a.amname,
    'TOAST ' || o.reloptions::text, CASE WHEN x.indisclustered THEN 'clustered' END)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_tablespace t ON t.oid = c.reltablespace LEFT JOIN pg_am a ON a.oid = c.relam
LEFT JOIN pg_class o ON o.oid = c.reltoastrelid LEFT JOIN pg_index x ON x.indexrelid = c.oid
WHERE c.relkind IN ('r', 'p', 'm', 'i', 'I') AND n.nspname = ANY (%(schemas)s)
UNION ALL
SELECT 'storage of ' || n.nspname || '.' || c.relname || '.' || a.attname, concat_ws(', ',
    'STORAGE ' || a.attstorage::text, 'COMPRESSION ' || nullif(a.attcompression::text, ''),
    'STATISTICS ' || nullif(a.attstattarget, -1), a.attoptions::text)
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'm', 'i', 'I') AND n.nspname = ANY (%(schemas)s)
"""


def _system_grants(catalog: str, acl: str, schema: str) -> str:
    # Of the schemas that the fingerprint leaves out, and of what extensions made.
    return f"""
SELECT 'access ' || concat_ws(' ', i.type, i.identity), o.{acl}::text
FROM pg_{catalog} o JOIN pg_namespace n ON n.oid = {schema}, pg_identify_object('pg_{catalog}'::regclass, o.oid, 0) i
WHERE o.{acl} IS NOT NULL AND n.nspname <> 'lifeboat' AND n.nspname NOT LIKE 'pg\\_temp%%'
AND (NOT n.nspname = ANY (%(schemas)s) OR EXISTS (
    SELECT FROM pg_depend e WHERE e.classid = 'pg_{catalog}'::regclass AND e.objid = o.oid AND e.deptype = 'e'))"""


_SYSTEM_GRANTS = "\nUNION ALL".join(
    (
        _system_grants("class", "relacl", "o.relnamespace"),
        _system_grants("proc", "proacl", "o.pronamespace"),
        _system_grants("type", "typacl", "o.typnamespace"),
        _system_grants("namespace", "nspacl", "o.oid"),
    )
)
# Of these the fingerprint has the names, and not all that can be altered.
_RARE = (
    *("am", "cast", "collation", "conversion", "language", "opclass", "operator", "opfamily", "transform"),
    *("ts_config", "ts_dict", "ts_parser", "ts_template", "event_trigger", "foreign_data_wrapper", "statistic_ext"),
)
_PROPERTIES = "\nUNION ALL".join(
    f"""
SELECT concat_ws(' ', i.type, i.identity), md5((to_jsonb(o) - 'oid')::text)
FROM pg_{catalog} o, pg_identify_object('pg_{catalog}'::regclass, o.oid, 0) i"""
    for catalog in _RARE
)
_PROPERTIES += """
UNION ALL
SELECT 'text search configuration ' || mapcfg::regconfig::text || ' mapping',
    md5(string_agg(concat_ws(' ', maptokentype, mapseqno, mapdict), ',' ORDER BY maptokentype, mapseqno))
FROM pg_ts_config_map GROUP BY mapcfg"""

QUERIES = (
    FactQuery("roles", _ROLES),
    FactQuery("passwords of roles", _PASSWORDS, hidden=True),
    FactQuery("memberships of roles", _MEMBERSHIPS),
    FactQuery("settings of roles and databases", _SETTINGS),
    FactQuery("databases", _DATABASES, changed_only=True),
    FactQuery("tablespaces", _TABLESPACES),
    FactQuery("extensions", _EXTENSIONS),
    FactQuery("comments", _COMMENTS),
    FactQuery("security labels", _LABELS),
    FactQuery("privileges on parameters", _PARAMETERS),
    FactQuery("replication slots", _SLOTS),
    FactQuery("replication origins", _ORIGINS),
    FactQuery("subscriptions", _SUBSCRIPTIONS, hidden=True),
    FactQuery("user mappings", _USER_MAPPINGS, hidden=True),
    FactQuery("prepared transactions", _PREPARED),
    FactQuery("materialized views", _FILLED, changed_only=True),
    FactQuery("invalid indexes", _INDEXES),
    FactQuery("storage", _STORAGE, changed_only=True),
    FactQuery("privileges on what PostgreSQL and extensions brought", _SYSTEM_GRANTS),
    FactQuery("properties of rare objects", _PROPERTIES, hidden=True, changed_only=True),
)
