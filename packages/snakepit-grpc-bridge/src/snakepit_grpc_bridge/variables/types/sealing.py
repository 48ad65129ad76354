"""Secrets as bytes that only the holder of a key can read. Pure, but for the random numbers used.

The scheme is Fernet, as implemented by the package ``cryptography``: AES in CBC mode and an HMAC.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from snakepit.errors import ConfigurationError, DecodeError
from snakepit_grpc_bridge.variables.types.secret import Secret

__all__ = ["seal", "unseal"]


def seal(secret: Secret, keys: Sequence[Secret], *, context: str) -> bytes:
    """Return a secret encrypted under the first of the keys.

    Args:
        secret: what is to be stored.
        keys: made by ``cryptography.fernet.Fernet.generate_key()``, the newest first. To change
            the key, put a new one in front; when everything was sealed anew, drop the old one.
        context: where it is stored, such as session and name. It can be unsealed with the same
            context only, so that nobody reads it by moving it to a place of his own.

    Raises:
        ConfigurationError: there is no key, one is no Fernet key, or ``cryptography`` is not
            installed.

    Example:
        >>> from cryptography.fernet import Fernet
        >>> keys = [Secret(Fernet.generate_key().decode())]
        >>> sealed = seal(Secret("a-key"), keys, context="session/name")
        >>> unseal(sealed, keys, context="session/name").reveal()
        'a-key'
    """
    token: bytes = _fernet(keys).encrypt(json.dumps([context, secret.reveal()]).encode())
    return token


def unseal(sealed: bytes, keys: Sequence[Secret], *, context: str) -> Secret:
    """Return the secret in what :func:`seal` returned for the same context under one of the keys.

    Raises:
        DecodeError: it was sealed under none of the keys or in another context, or was changed.
        ConfigurationError: as for :func:`seal`.
    """
    fernet = _fernet(keys)
    from cryptography.fernet import InvalidToken

    try:
        place, text = json.loads(fernet.decrypt(sealed))
    except InvalidToken:
        raise DecodeError(
            "a sealed secret can't be opened: none of the keys fits, or it was changed; put the "
            "key it was sealed under into the list of keys"
        ) from None
    if place != context:
        raise DecodeError(
            "a sealed secret belongs to another place than the one it was found in; set it anew"
        )
    return Secret(text)


def _fernet(keys: Sequence[Secret]) -> Any:
    try:
        from cryptography.fernet import Fernet, MultiFernet
    except ImportError as missing:
        raise ConfigurationError(
            "sealing secrets needs the package cryptography; install it with: "
            "pip install 'snakepit-grpc-bridge[secrets]'"
        ) from missing
    try:
        return MultiFernet([Fernet(key.reveal()) for key in keys])
    except ValueError:
        raise ConfigurationError(
            "secrets are sealed under Fernet keys, and there is none, or one is none; make one "
            "with cryptography.fernet.Fernet.generate_key()"
        ) from None
