"""Ed25519 signatures (RFC 8032) over manifests and events, so that a reader knows who wrote them.

Signatures are detached raw 64-byte files; stock OpenSSL checks them:
`openssl pkeyutl -verify -pubin -inkey KEY.pub -rawin -in manifest.json -sigfile manifest.json.sig`.
"""

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from lifeboat.errors import SettingsError
from lifeboat.storage.durable import write_durably
from lifeboat.storage.manifest import ManifestError


def key_id(public_key: Ed25519PublicKey) -> str:
    """The first 16 hex digits of the SHA-256 of the raw public key."""
    raw = public_key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]


@dataclass(frozen=True)
class Signer:
    """Signs what this installation writes."""

    private_key: Ed25519PrivateKey

    @property
    def key_id(self) -> str:
        """The id of the key, as manifests name it."""
        return key_id(self.private_key.public_key())

    def sign(self, data: bytes) -> bytes:
        """The 64-byte signature of `data`."""
        return self.private_key.sign(data)

    @classmethod
    def load(cls, path: Path) -> "Signer":
        """Read a PEM private key; raises SettingsError when it is missing or no Ed25519 key."""
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except FileNotFoundError:
            raise SettingsError(
                f"the signing key {path} does not exist", hint="Create it with `lifeboat init`."
            ) from None
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"cannot read the signing key {path}: {error}", hint="It must be an Ed25519 key in PEM form."
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise SettingsError(
                f"the signing key {path} is not an Ed25519 key", hint="Create one with `lifeboat init`."
            )
        return cls(key)

    @classmethod
    def load_or_create(cls, path: Path) -> "Signer":
        """Read the key at `path`, or create it (mode 0600) with its public half in `<path>.pub`."""
        if path.exists():
            return cls.load(path)
        private = Ed25519PrivateKey.generate()
        path.parent.mkdir(parents=True, exist_ok=True)
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        with suppress(FileExistsError):
            write_durably(path, pem, mode=0o600, exclusive=True)
        # Another process may have been first: the public half belongs to the key that is there.
        signer = cls.load(path)
        public = signer.private_key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        write_durably(path.with_name(path.name + ".pub"), public, mode=0o644)
        return signer


@dataclass(frozen=True)
class TrustedKeys:
    """The public keys whose signatures readers accept, by key id."""

    keys: dict[str, Ed25519PublicKey]

    @classmethod
    def of(cls, signer: Signer | None, public_key_files: Iterable[Path] = ()) -> "TrustedKeys":
        """This installation's own key and those in `public_key_files` (PEM); raises SettingsError."""
        keys: dict[str, Ed25519PublicKey] = {}
        if signer is not None:
            keys[signer.key_id] = signer.private_key.public_key()
        for path in public_key_files:
            try:
                key = serialization.load_pem_public_key(path.read_bytes())
            except (OSError, ValueError) as error:
                raise SettingsError(f"cannot read the public key {path}: {error}") from error
            if not isinstance(key, Ed25519PublicKey):
                raise SettingsError(f"the public key {path} is not an Ed25519 key")
            keys[key_id(key)] = key
        return cls(keys)

    def check(self, data: bytes, signature: bytes, *, where: str) -> str:
        """Return the id of the key that signed `data`; raises ManifestError when none of ours did."""
        for identifier, key in self.keys.items():
            try:
                key.verify(signature, data)
            except InvalidSignature:
                continue
            return identifier
        raise ManifestError(
            f"{where} is not signed by a trusted key",
            hint="It was changed after it was written, or another installation wrote it: in that case add its public "
            "key to `signing.trusted_keys`.",
        )


def require_private(path: Path) -> None:
    """Refuse a private key that others can read; raises SettingsError."""
    if os.stat(path).st_mode & 0o077:
        raise SettingsError(f"the signing key {path} can be read by others", hint=f"Run `chmod 600 {path}`.")
