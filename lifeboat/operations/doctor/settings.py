"""Doctor's checks of the settings file and the signing key."""

import os
import pwd
import stat
from collections.abc import Iterator

from lifeboat.errors import SettingsError
from lifeboat.operations.doctor.results import CheckResult, failed, ok, warning
from lifeboat.operations.installation import Installation
from lifeboat.postgres.connections import ConnectionInfo
from lifeboat.storage.signing import Signer, require_private


def check_settings_file(installation: Installation) -> Iterator[CheckResult]:
    """Were the settings read, and are the passwords in them private?"""
    settings_file = installation.settings_file
    variables = [name for name in os.environ if name.startswith("LIFEBOAT_") and "__" in name]
    beside = f", changed by {', '.join(sorted(variables))}" if variables else ""
    if settings_file is None:
        yield ok("settings", f"in order{beside}")
        return
    mode = stat.S_IMODE(settings_file.stat().st_mode)
    if mode & 0o077 and _holds_password(installation):
        yield failed(
            "settings",
            f"{settings_file} has mode {mode:04o}, and a password is in the settings",
            f"chmod 600 {settings_file}",
        )
    else:
        yield ok("settings", f"{settings_file}{beside}")


def check_signing_key(installation: Installation) -> Iterator[CheckResult]:
    """Is the key there, ours alone, and of the right kind?"""
    path = installation.settings.signing_key_file
    if not path.exists():
        yield warning(
            "signing key",
            f"{path} is not there: the next backup makes a new one, and backups signed by another are refused",
            f"cp <the old installation's signing.pem> {path}   # nothing to do on a new installation",
        )
        return
    owner = path.stat().st_uid
    if owner != os.geteuid() and os.geteuid() != 0:
        name = pwd.getpwuid(os.geteuid()).pw_name
        yield failed("signing key", f"{path} belongs to another account than {name}", f"sudo chown {name} {path}")
        return
    try:
        require_private(path)
    except SettingsError as error:
        yield failed("signing key", error.message, f"chmod 600 {path}")
        return
    yield ok("signing key", f"{path} (key {Signer.load(path).key_id})")


def _holds_password(installation: Installation) -> bool:
    settings = installation.settings
    strings = [dsn.get_secret_value() for dsn in (settings.platform.dsn, settings.catalog.dsn) if dsn is not None]
    return any("password" in ConnectionInfo.parse(dsn).parameters for dsn in strings)
