"""Wakes the checkpointer of a server that was started just now, so that archive_timeout counts from the start.

It falls asleep while recovery, which each start goes through, is still on, and does not look at archive_timeout then:
no segment would be ended for checkpoint_timeout. Rereading the configuration wakes it.
"""

from typing import Any

import psycopg

from lifeboat.postgres.connections import single_value

# It is started anew after a crash of another process too; who may not see it knows when the server was started. A
# reload since then has waked it already.
_SLEEPS = """
SELECT t.setting::integer > 0
   AND pg_catalog.clock_timestamp() < s.at + c.setting::integer * interval '1 second'
   AND pg_catalog.pg_conf_load_time() <= s.at
FROM pg_catalog.pg_settings t, pg_catalog.pg_settings c,
     (SELECT coalesce((SELECT backend_start FROM pg_catalog.pg_stat_activity WHERE backend_type = 'checkpointer'),
                      pg_catalog.pg_postmaster_start_time())) AS s (at)
WHERE t.name = 'archive_timeout' AND c.name = 'checkpoint_timeout'
"""
_MAY_WAKE = """
SELECT pg_catalog.has_function_privilege('pg_catalog.pg_reload_conf()', 'EXECUTE')
   AND pg_catalog.has_function_privilege('pg_catalog.pg_stat_file(text, boolean)', 'EXECUTE')
   AND pg_catalog.pg_has_role('pg_read_server_files', 'USAGE')
   AND pg_catalog.pg_has_role('pg_read_all_settings', 'USAGE')
"""
# Nobody shall find what he has only half edited to be in force. An included file of which no setting is in force is not
# known here.
_UNEDITED = """
SELECT bool_and((pg_catalog.pg_stat_file(path, true)).modification <= pg_catalog.pg_conf_load_time())
FROM (SELECT setting FROM pg_catalog.pg_settings WHERE name IN ('config_file', 'hba_file', 'ident_file')
      UNION SELECT pg_catalog.current_setting('data_directory') || '/postgresql.auto.conf'
      UNION SELECT sourcefile FROM pg_catalog.pg_settings WHERE sourcefile IS NOT NULL) AS f (path)
"""


def wake_checkpointer(connection: psycopg.Connection[Any]) -> bool:
    """Have a server started less than checkpoint_timeout ago look at archive_timeout; says whether.

    That is a reload of its configuration. It is left alone where the role may not do that, or cannot see that the files
    are as the server has read them at its start. Raises psycopg.Error.
    """
    if any(not single_value(connection, question) for question in (_SLEEPS, _MAY_WAKE, _UNEDITED)):
        return False
    connection.execute("SELECT pg_catalog.pg_reload_conf()")
    return True
