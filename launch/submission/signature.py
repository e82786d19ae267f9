"""SIGNATURE.json: Ed25519 over the root hash."""

from __future__ import annotations

from pathlib import Path

from guiderail.agent.errors import SetupError
from guiderail.launch import parts
from guiderail.launch.submission.archive import SIGNATURE, Contents
from guiderail.launch.submission.schema import canonical, load

_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P  # of the curve -x^2 + y^2 = 1 + d x^2 y^2


def sign(root: str, key: Path) -> bytes:
    """SIGNATURE.json. key: an Ed25519 private key in PEM, as `openssl genpkey -algorithm ed25519` writes it."""
    parts.require("cryptography", "submit")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        private = serialization.load_pem_private_key(key.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise SetupError(f"{key}: {error}; make a key with: openssl genpkey -algorithm ed25519 -out {key}") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise SetupError(f"{key} is not an Ed25519 key; make one with: openssl genpkey -algorithm ed25519 -out key.pem")
    public = private.public_key().public_bytes_raw().hex()
    content = {
        "algorithm": "Ed25519",
        "public_key": public,
        "root": root,
        "signature": private.sign(root.encode()).hex(),
    }
    return (canonical(content) + "\n").encode()


def signer(found: Contents) -> tuple[str | None, str | None]:
    """(public key, hex, of a valid signature, what is wrong with it); both None where there is none."""
    if SIGNATURE not in found.texts:
        return None, None
    parts.require("cryptography", "submit")
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        content = load(found.texts[SIGNATURE])
        public, signature = bytes.fromhex(content["public_key"]), bytes.fromhex(content["signature"])
        if content["algorithm"] != "Ed25519" or content["root"] != found.root:
            raise ValueError("it signs another bundle")
        if small_order(public):
            raise ValueError("the key is one of those under which anybody can sign")
        Ed25519PublicKey.from_public_bytes(public).verify(signature, found.root.encode())
    except InvalidSignature:
        return None, "the signature is not valid"
    except (ValueError, KeyError, TypeError) as error:
        return None, f"not a signature of this bundle: {error}"
    return public.hex(), None


def small_order(public: bytes) -> bool:
    """Whether 8 times this point is the neutral one: a signature under such a key proves nothing.

    Of order 1 and 2: y = 1 and y = -1; of order 4: y = 0; of order 8: doubling gives y = 0, so x^2 = -y^2, and by the curve
    d y^4 + 2 y^2 = 1.
    """
    y = int.from_bytes(public, "little") % 2**255 % _P
    return y * (y * y - 1) * (_D * y**4 + 2 * y * y - 1) % _P == 0
