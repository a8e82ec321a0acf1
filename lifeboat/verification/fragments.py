"""SQL fragments that make catalog facts comparable: lists sorted, ACLs in one form, members of extensions left out."""

# ruff: noqa: S608 - the fragments are put together from constants of our own modules only


def sorted_list(array: str) -> str:
    """SQL for a text array as a sorted jsonb list; an empty one is NULL, as a missing one is."""
    return f"""(SELECT jsonb_agg(item ORDER BY item COLLATE "C") FROM unnest({array}) AS item)"""


def sorted_grants(acl: str, default_kind: str, owner: str) -> str:
    """SQL for an ACL as a sorted jsonb list such as `reader:SELECT`, with `*` after it for the grant option.

    No ACL is the default one, whose kind `default_kind` is acldefault()'s. The grantor is left out: a restore may make
    it the owner.
    """
    return f"""(SELECT jsonb_agg(g.text ORDER BY g.text COLLATE "C") FROM (
        SELECT DISTINCT coalesce(pg_get_userbyid(nullif(x.grantee, 0)), 'PUBLIC') || ':' || x.privilege_type
            || CASE WHEN x.is_grantable THEN '*' ELSE '' END AS text
        FROM aclexplode(coalesce({acl}, acldefault('{default_kind}', {owner}))) x) g)"""


def not_member(catalog: str, oid: str) -> str:
    """SQL for: no extension made this object; an extension's version stands for what it makes."""
    return f"""NOT EXISTS (SELECT FROM pg_depend e
        WHERE e.classid = '{catalog}'::regclass AND e.objid = {oid} AND e.deptype = 'e')"""
