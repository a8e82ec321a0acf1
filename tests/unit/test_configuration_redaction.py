"""Secrets do not survive: by the name of a setting, inside a text, in a settings file, and wherever else they stand."""

import json
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifeboat.configuration.content import RowsSection
from lifeboat.configuration.index import REDACTED, ConfigurationError
from lifeboat.configuration.jsontext import split_row
from lifeboat.configuration.redacted_files import NotRedactable, redact_settings_file
from lifeboat.configuration.redaction import Redactor
from lifeboat.configuration.secret_names import SecretNames, snake_case
from lifeboat.configuration.secret_text import holds_private_key, suspected_secrets

PLANTED = "Pl4nted-S3cret"
KEY = f"-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA{PLANTED.replace('-', '')}\n-----END RSA PRIVATE KEY-----"


def row_of(text: str) -> dict[str, str]:
    return split_row(text)


@pytest.mark.parametrize(
    "name",
    [
        "password", "smtp_password", "smtpPassword", "SMTP-PASSWORD", "passwd", "passphrase", "client_secret", "secret",
        "token", "access_token", "accessToken", "api_key", "apiKey", "APIKey", "x-api-key", "repo1-cipher-pass",
        "repo1-s3-key-secret", "repo1-s3-key", "private_key", "signingKey", "ldapbindpasswd", "radiussecrets",
        "db_pass", "password_hash", "password2", "credentials", "authorization", "PGPASSWORD", "slack_bot_token",
        "webhook_secret", "encryption_key", "refresh_tokens", "app.jwt_secret", "cookie",
    ],
)  # fmt: skip
def test_names_of_secrets(name: str) -> None:
    assert SecretNames().is_secret(name, PLANTED, strict=False)


@pytest.mark.parametrize(
    "name",
    [
        "max_tokens", "tokenizer", "password_file", "password_encryption", "passwordMinLength", "keyboard", "monkey",
        "primary_key", "sort_key", "key", "ssl_key_file", "trigger_token", "pad_token", "render_pass", "secretary",
        "key_columns", "trusted_keys", "secret_name", "token_count", "passenger",
    ],
)  # fmt: skip
def test_names_of_other_things(name: str) -> None:
    assert not SecretNames().is_secret(name, "studio-intro", strict=False)


def test_settings_decide_in_the_end() -> None:
    names = SecretNames(redact=["^voice_id$"], keep=["^api_key$", "^seed_secret$"])
    assert names.is_secret("voiceId", "x", strict=False)
    assert not names.is_secret("apiKey", PLANTED, strict=False)
    assert not names.is_secret("seed-secret", PLANTED, strict=True)


@pytest.mark.parametrize("value", ["${SMTP_PASSWORD}", "$TOKEN", "{{ token }}", "%(token)s", "env:TOKEN", ""])
def test_a_reference_is_no_secret(value: str) -> None:
    assert not SecretNames().is_secret("password", value, strict=True)


def test_anything_random_named_a_key_is_secret() -> None:
    assert SecretNames().is_secret("fal_key", "a8Fh2kLmQ9zXw3RtY7uP", strict=False)
    assert not SecretNames().is_secret("sort_key", "created_at", strict=False)
    assert SecretNames().is_secret("fal_key", "short", strict=True)


@pytest.mark.parametrize(
    ("name", "plain"), [("APIKey", "api_key"), ("s3-keySecret", "s3_key_secret"), ("a.B c", "a_b_c")]
)
def test_spellings_are_one(name: str, plain: str) -> None:
    assert snake_case(name) == plain


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://studio:{PLANTED}@db.example/studio",
        f"postgresql://studio:{PLANTED}:with:colons@db/studio",
        f"host=db user=studio password={PLANTED} dbname=studio",
        f"host=db password = '{PLANTED} with spaces' user=x",
        f"password={PLANTED},more'quoted' host=db",
        f"host=db password='{PLANTED} never closed",
        f"redis://:{PLANTED}@cache:6379/0",
        f"https://api.example/v1?token={PLANTED}&page=2",
        f"https://x/?a=1;api_key={PLANTED}",
        f"PGPASSWORD={PLANTED} psql -c 'select 1'",
        f"curl --token {PLANTED} https://x",
        f"curl --password='{PLANTED}' https://x",
        f"Server=db;Password={PLANTED};Database=x",
        f"Authorization: Bearer {PLANTED}-0123456789",
        f"https://hooks.slack.com/services/T000/B000/{PLANTED}",
        f"https://discord.com/api/webhooks/1/{PLANTED}",
        f"app.jwt_secret=one two {PLANTED}",
        f"first line\napp.token=one two {PLANTED}\nlast line",
        f"conninfo=password={PLANTED}",
        f"a=1&b=2&key=short&client_secret={PLANTED}",
        f"ghp_{PLANTED.replace('-', '')}{'x' * 36}",
        f"text before\n{KEY}\ntext after",
        json.dumps(KEY),
    ],
)
def test_texts_lose_their_secrets(text: str) -> None:
    redactor = Redactor()
    clean = redactor.text(text)
    assert PLANTED not in clean
    assert PLANTED.replace("-", "") not in clean
    assert REDACTED in clean
    assert redactor.text(clean) == clean


@pytest.mark.parametrize(
    "text",
    [
        "http://localhost:8188/prompt",
        "see http://a:80 or mail bob@example.org",
        '["http://a:80","bob@x.org"]',
        "postgresql://studio@db/studio",
        "a = b; the token bucket is full - no password needed",
        "max_tokens=4096 seed=42",
        "password=${SMTP_PASSWORD}",
        "postgres://u:${PGPASSWORD}@h/db",
        "openssl prints -----BEGIN PRIVATE KEY----- first",
    ],
)
def test_other_texts_stay(text: str) -> None:
    assert Redactor().text(text) == text


def test_long_texts_are_read_in_linear_time() -> None:
    for text in ("a-" * 100_000, "x=" * 100_000, "--a " * 50_000, "://" * 50_000, "'\"" * 50_000, "a:b@" * 50_000):
        Redactor().text(text)


def test_rows_are_redacted_by_path_and_listed() -> None:
    redactor = Redactor()
    row = row_of(
        f'{{"id": 7, "name": "mail", "settings": {{"x": 1.10, "smtp": {{"password": "{PLANTED}", "port": 25}}, '
        f'"channels": [{{"token": "{PLANTED}"}}, {{"name": "API_TOKEN", "value": "{PLANTED}"}}], "max_tokens": 4096}}, '
        f'"credentials": {{"user": "a", "pin": 1234, "on": true}}, "note": "uses {PLANTED}"}}'
    )
    section = RowsSection("query", "n", {}, ("id",), (row,))
    for _ in range(2):
        section = redactor.section("prefs", section)
    (clean,) = section.rows
    assert PLANTED not in json.dumps(clean)
    assert clean["settings"] == (
        '{"x": 1.10, "smtp": {"password": "***REDACTED***", "port": 25}, '
        '"channels": [{"token": "***REDACTED***"}, {"name": "API_TOKEN", "value": "***REDACTED***"}], '
        '"max_tokens": 4096}'
    )
    assert clean["credentials"] == '{"user": "***REDACTED***", "pin": "***REDACTED***", "on": true}'
    assert clean["note"] == '"uses ***REDACTED***"'
    assert [(each.item, each.field) for each in redactor.listed()] == [
        ("7", field)
        for field in (
            "credentials.pin", "credentials.user", "note", "settings.channels[0].token", "settings.channels[1].value",
            "settings.smtp.password",
        )
    ]  # fmt: skip


def test_untouched_fields_keep_their_text() -> None:
    row = {"id": "1", "raw": '{"b":1,  "b":2}', "n": '"1.50"', "graph": '{"seed": 1.0}'}
    assert Redactor().row("x", "1", row) == row


def test_a_hidden_secret_is_found() -> None:
    clean = Redactor().row("x", "1", {"raw": f'{{"password": "{PLANTED}", "password": ""}}'})
    assert clean == {"raw": '{"password": ""}'}


def test_key_material_in_bytea_is_found() -> None:
    assert Redactor().row("x", "1", {"blob": f'"\\\\x{KEY.encode().hex()}"'}) == {"blob": f'"{REDACTED}"'}


def test_a_secret_cannot_be_a_key_column() -> None:
    section = RowsSection("query", "n", {}, ("password",), ({"password": '"x"'},))
    with pytest.raises(ConfigurationError, match="key column password"):
        Redactor().section("users", section)


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1))
def test_no_password_survives_in_rows(password: str) -> None:
    name = "smtp_password"
    clean = Redactor().row("x", "1", {"settings": json.dumps({name: password}, ensure_ascii=False)})
    kept = json.loads(clean["settings"])[name]
    assert kept == REDACTED or not SecretNames().is_secret(name, password, strict=False)


conninfo_passwords = st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=9).filter(
    lambda text: SecretNames().is_secret("password", text, strict=True) and REDACTED not in text
)


@given(conninfo_passwords)
def test_no_password_survives_in_server_settings(password: str) -> None:
    quoted = password.replace("\\", "\\\\").replace("'", "\\'")
    conninfo = f"host=primary user=rep password='{quoted}' sslmode=prefer"
    setting = conninfo.replace("\\", "\\\\").replace("'", "''")
    clean = redact_settings_file(
        Redactor(), "server", "postgresql.conf", f"primary_conninfo = '{setting}' # here\nport = 5432\n".encode()
    ).decode()
    assert clean.endswith("' # here\nport = 5432\n")
    assert "host=primary user=rep" in clean
    assert "sslmode=prefer" in clean
    assert REDACTED in clean
    assert len(clean) < len(conninfo) + 60
    assert password not in clean


@given(conninfo_passwords)
def test_no_password_survives_in_our_own_settings(password: str) -> None:
    toml = (
        f"[catalog]\ndsn = {json.dumps(f'host=db password={password}')}\n[x]\nsmtp_password = {json.dumps(password)}\n"
    )
    assert password in tomllib.loads(toml)["x"]["smtp_password"]
    clean = redact_settings_file(Redactor(), "lifeboat", "lifeboat.toml", toml.encode()).decode()
    found = tomllib.loads(clean)
    # A value in quotes keeps its quotes.
    assert found["catalog"]["dsn"].replace('"', "").replace("'", "") == f"host=db password={REDACTED}"
    assert found["x"] == {"smtp_password": REDACTED}


POSTGRESQL_CONF = f"""\
listen_addresses = '*'          # what IP address(es) to listen on
password_encryption = scram-sha-256
#ssl_passphrase_command = ''
ssl_passphrase_command = 'echo {PLANTED}'
ssl_key_file '/etc/ssl/private/server.key'
primary_conninfo = 'host=a password=''{PLANTED} x'' user=b' # {PLANTED}
# primary_conninfo = 'host=a password={PLANTED}'
restore_command = 'PGPASSWORD={PLANTED} fetch %f "%p"'
archive_command = 'wal-push --secret-key {PLANTED} %p'
app.jwt_secret {PLANTED}
"""


def test_postgresql_conf() -> None:
    redactor = Redactor()
    clean = redact_settings_file(redactor, "server", "postgresql.conf", POSTGRESQL_CONF.encode()).decode()
    assert PLANTED not in clean
    assert clean.splitlines() == [
        "listen_addresses = '*'          # what IP address(es) to listen on",
        "password_encryption = scram-sha-256",
        "#ssl_passphrase_command = ''",
        "ssl_passphrase_command = 'echo ***REDACTED***'",
        "ssl_key_file '/etc/ssl/private/server.key'",
        "primary_conninfo = 'host=a password=''***REDACTED***'' user=b' # ***REDACTED***",
        "# primary_conninfo = 'host=a password=***REDACTED***'",
        "restore_command = 'PGPASSWORD=***REDACTED*** fetch %f \"%p\"'",
        "archive_command = 'wal-push --secret-key ***REDACTED*** %p'",
        "app.jwt_secret ***REDACTED***",
    ]
    assert {each.field for each in redactor.listed()} == {f"line {number}" for number in (4, 6, 7, 8, 9, 10)}


def test_pgbackrest_conf_and_pg_hba_conf() -> None:
    text = f"[global]\nrepo1-cipher-pass={PLANTED}\n#repo1-s3-key-secret={PLANTED}\nrepo1-s3-key-type=auto\n"
    clean = redact_settings_file(Redactor(), "server", "pgbackrest.conf", text.encode()).decode()
    assert clean == text.replace(PLANTED, REDACTED)
    text = f'host all all 0/0 ldap ldapbindpasswd="{PLANTED}"\nhost all all ::/0 radius radiussecrets={PLANTED}\n'
    clean = redact_settings_file(Redactor(), "server", "pg_hba.conf", text.encode()).decode()
    assert clean == text.replace(PLANTED, REDACTED)


LIFEBOAT_TOML = f"""\
state_dir = "/var/lib/lifeboat"   # password = "{PLANTED}"
[platform]
dsn = 'postgresql://studio:{PLANTED}@db/studio'
cluster = "main"
[destinations.far]
secret_key = '''
{PLANTED}'''
endpoint = "https://s3.example:9000"
inline = {{ user = "a", password = "{PLANTED}", ports = [1, 2] }}
[secrets]
anything = "{PLANTED}"
pin = 1234
[notifications]
urls = [
  "slack://{PLANTED}/B/C",
  "mailto://me:{PLANTED}@example.org",
]
tokens = ["{PLANTED}", "x"]
[configuration.sections.workflows]
sql = "SELECT id FROM workflows WHERE name = 'a' -- key"
key_columns = ["id"]
"""


def test_lifeboat_toml() -> None:
    clean = redact_settings_file(Redactor(), "lifeboat", "lifeboat.toml", LIFEBOAT_TOML.encode()).decode()
    assert PLANTED not in clean
    found = tomllib.loads(clean)
    assert found["platform"] == {"dsn": f"postgresql://studio:{REDACTED}@db/studio", "cluster": "main"}
    assert found["notifications"]["urls"] == [f"slack://{REDACTED}", f"mailto://{REDACTED}"]
    assert found["destinations"]["far"]["endpoint"] == "https://s3.example:9000"
    assert found["notifications"]["tokens"] == [REDACTED, REDACTED]
    assert found["configuration"] == tomllib.loads(LIFEBOAT_TOML)["configuration"]
    assert clean.splitlines()[0].startswith('state_dir = "/var/lib/lifeboat"   # ')


@pytest.mark.parametrize(
    ("path", "text", "why"),
    [
        ("a.conf", KEY, "private key"),
        ("lifeboat.toml", "a = ", "not valid TOML"),
        ("lifeboat.toml", 'cluster = "main"\n[secrets]\nname = "main"\npin = 1', "cannot be taken out"),
    ],
)
def test_what_cannot_be_cleaned_is_left_out(path: str, text: str, why: str) -> None:
    with pytest.raises(NotRedactable, match=why):
        redact_settings_file(Redactor(), "server", path, text.encode())


def test_private_keys_are_recognised() -> None:
    assert holds_private_key(KEY)
    assert holds_private_key(json.dumps({"private_key": KEY}))
    assert holds_private_key("-----BEGIN PGP PRIVATE KEY BLOCK-----\r\nVersion: GnuPG\r\n")
    assert holds_private_key("AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQQQQQQQQQQQ")
    assert not holds_private_key("-----BEGIN CERTIFICATE-----\nMIIEowIBAAKCAQEA\n")
    assert not holds_private_key('if "-----BEGIN PRIVATE KEY-----" in text:')


def test_scripts_that_seem_to_carry_secrets() -> None:
    script = f"""\
#!/bin/sh
curl -H "X: $TOKEN" https://x
API_TOKEN={PLANTED}
export DB_PASSWORD='{PLANTED}'
PASSWORD="$1"
token = os.environ["TOKEN"]
client(api_key="{PLANTED}")
password: "{PLANTED}"
url = "postgres://u:{PLANTED}@h/d"
"""
    assert suspected_secrets(script, SecretNames()) == [3, 4, 7, 8, 9]
