"""Key files of Google service accounts."""

import json
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa


def make_private_key() -> str:
    """Return a new RSA key in PEM format."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def write_account(path: Path, private_key: str, **more: str) -> Path:
    """Write the key file of an account; return its path."""
    account = {
        "type": "service_account",
        "project_id": "tests",
        "private_key_id": "1",
        "private_key": private_key,
        "client_email": "kinto@tests.iam.gserviceaccount.com",
        "token_uri": "http://127.0.0.1:9/token",
        **more,
    }
    path.write_text(json.dumps(account))
    return path
