"""Passwords and tokens that must not get into files, pages and messages.

Owns which forms are recognised without knowing the secret: addresses with a user before the host, and tokens by their
prefix. What people write in preference data is looked at by the doctor (`doctor.texts.secrets`), which owns its own,
more careful forms. Linear in the length of a text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

MASK = "***"
_IN_ADDRESS = re.compile(r"://[^/\s]*@")
# As a path, an address has lost a slash.
_IN_PATH = re.compile(r"(:/{1,2})[^/\s]*@")
_TOKEN = re.compile(
    r"\b(hf_|api_org_|sk-|gh[pousr]_|github_pat_|glpat-|xox[abeprs]-|xapp-|pypi-|npm_|AKIA|ASIA|AIza|GOCSPX-|gsk_|xai-|"
    r"nvapi-|[sr]k_live_|whsec_|hvs\.|dop_v1_)[\w-]{12,}|"
    r"\b((?i:bearer|basic)) {1,4}[\w.~+/=-]{12,}"
)
_DOTTED = re.compile(r"(?<![\w-])(?:eyJ[\w-]{10,}+|SG\.[\w-]{12,}+)(?:\.[\w-]*+){0,4}")
"""A web token (JWT) whole or cut off, and what else is written with dots."""
PEM_LABEL = r"(?:[A-Z0-9]{2,10} ){0,3}PRIVATE KEY(?: BLOCK)?"
"""What the first and the last line of a private key call it."""
BETWEEN = r"(?:\s|\\{1,4}[nr]|[\"'`,+>|#])"
"""What stands between the lines of a key: breaks, also as programs and JSON write them, and marks of quoting."""
_PRIVATE_KEY = re.compile(
    rf"(-{{4,5}} ?BEGIN {PEM_LABEL} ?-{{4,5}})"
    rf"(?=(?:{BETWEEN}|[^A-Za-z0-9]){{0,40}}+(?:(?:Proc-Type|DEK-Info|Version|Comment|Hash): |[A-Za-z0-9+/]{{16}}))"
    r"[\s\S]*?(?=-{4,5} ?END|\Z)"
)
"""A private key as it is written into files, to its end or, where that was cut off, to the end of the text."""
_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY|CREDENTIAL|_PAT$", re.IGNORECASE)
_SHORTEST = 8


def has_password(text: str) -> bool:
    """Say whether a text is or holds an address with a user, password or token before the host."""
    return _IN_ADDRESS.search(text) is not None


def masked(text: str, known: Iterable[str] = ()) -> str:
    """Return a text without the secrets that can be recognised, and without those that are `known`.

    A known one is also recognised as Python and JSON write it, without its outer blanks, and with its lines joined.
    """
    for secret in sorted({form for one in known for form in _forms_of(one)}, key=len, reverse=True):
        text = text.replace(secret, MASK)
    text = _IN_PATH.sub(f"\\1{MASK}@", text)
    text = _DOTTED.sub(MASK, _PRIVATE_KEY.sub(f"\\1{MASK}", text))
    return _TOKEN.sub(lambda found: f"{found[1] or found[2] + ' '}{MASK}", text)


def _forms_of(secret: str) -> set[str]:
    """Return how a secret may stand in what a library says of it."""
    raw = secret.encode(errors="surrogatepass")
    said = {form for one in (secret, secret.strip()) for form in (one, repr(one)[1:-1], json.dumps(one)[1:-1])}
    said |= {repr(one)[2:-1] for one in (raw, raw.strip())} | {" ".join(secret.split())}
    return said - {""}


def secrets_of(environment: Mapping[str, str]) -> list[str]:
    """Return the values of an environment whose names say that they are secret; short ones are words, not secrets."""
    return [value for name, value in environment.items() if _SECRET_NAME.search(name) and len(value) >= _SHORTEST]
