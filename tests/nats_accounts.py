"""Operator, account and user of a NATS server that knows users by JWT alone: what the tool `nsc` makes."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from pathlib import Path
from typing import Any

import nkeys


def _pair(prefix: int) -> tuple[Any, str]:
    seed = nkeys.encode_seed(secrets.token_bytes(32), prefix)
    return nkeys.from_seed(seed), seed.decode()


def _public(pair: Any) -> str:
    found: str = pair.public_key.decode()
    return found


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _jwt(issuer: Any, subject: Any, name: str, kind: str, **claims: Any) -> str:
    body: dict[str, Any] = {"iat": int(time.time()), "iss": _public(issuer), "name": name, "sub": _public(subject)}
    body["nats"] = {"type": kind, "version": 2, **claims}
    body["jti"] = base64.b32encode(hashlib.sha256(json.dumps(body).encode()).digest()).rstrip(b"=").decode()
    signed = ".".join(_encoded(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "ed25519-nkey"}, body))
    return f"{signed}.{_encoded(issuer.sign(signed.encode()))}"


def make_accounts(creds: Path) -> dict[str, Any]:
    """Write the `.creds` file of a user, and return the settings of a server that knows it."""
    operator, _ = _pair(nkeys.PREFIX_BYTE_OPERATOR)
    system, _ = _pair(nkeys.PREFIX_BYTE_ACCOUNT)
    account, _ = _pair(nkeys.PREFIX_BYTE_ACCOUNT)
    user, seed = _pair(nkeys.PREFIX_BYTE_USER)
    limits = {
        "subs": -1,
        "data": -1,
        "payload": -1,
        "imports": -1,
        "exports": -1,
        "wildcards": True,
        "conn": -1,
        "leaf": -1,
    }
    stored = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
    jwt = _jwt(account, user, "host", "user", subs=-1, data=-1, payload=-1)
    creds.write_text(
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
    return {
        "operator": _jwt(operator, operator, "O", "operator", system_account=_public(system)),
        "system_account": _public(system),
        "resolver": "MEMORY",
        "resolver_preload": {
            _public(system): _jwt(operator, system, "SYS", "account", limits=limits),
            _public(account): _jwt(operator, account, "A", "account", limits={**limits, **stored}),
        },
    }
