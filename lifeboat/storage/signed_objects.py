"""Small objects with a detached signature beside them: `<key>` and `<key>.sig`, the signature first."""

from lifeboat.storage.destination import Destination, ObjectMissing
from lifeboat.storage.manifest import SIGNATURE_SUFFIX, ManifestError
from lifeboat.storage.signing import Signer, TrustedKeys


def put_signed(destination: Destination, signer: Signer | None, key: str, data: bytes, *, exclusive: bool) -> None:
    """Store an object with its signature, durably; raises ManifestError without a key, FileExistsError."""
    if signer is None:
        raise ManifestError(f"cannot write {key} without a signing key", hint="Create the key with `lifeboat init`.")
    destination.put(key + SIGNATURE_SUFFIX, signer.sign(data))
    destination.put(key, data, exclusive=exclusive)


def read_signed(destination: Destination, trusted: TrustedKeys, key: str, signed_key: str | None = None) -> bytes:
    """An object whose signature is that of a trusted key; raises ManifestError, ObjectMissing.

    `signed_key` is what it was called when it was signed, where that is not its present key.
    """
    data = destination.read(key)
    try:
        signature = destination.read((signed_key or key) + SIGNATURE_SUFFIX)
    except ObjectMissing as error:
        raise ManifestError(f"{key} has no signature", hint="Do not trust it: compare with another copy.") from error
    trusted.check(data, signature, where=key)
    return data
