"""Settings of the key that signs manifests, and of the keys that readers trust."""

from pydantic import Field

from lifeboat.settings.base import AbsolutePath, Section


class SigningSettings(Section):
    """Ed25519 keys in PEM files."""

    key_file: AbsolutePath | None = Field(
        None, description="The private key; by default `<state_dir>/keys/signing.pem`."
    )
    trusted_keys: list[AbsolutePath] = Field([], description="Public keys of others whose backups we read.")
