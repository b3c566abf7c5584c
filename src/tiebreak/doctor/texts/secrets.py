"""Secrets in texts: keys, tokens, private keys, passwords that are written out.

Owns the forms that count and what is only a placeholder. Conservative: a finding of this rule stops a run, so a form
needs its own prefix, or quotes, a name and the look of chance. It knows nothing of who issued what or whether it works.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from tiebreak.doctor.texts.controls import Hit


class _Form(NamedTuple):
    kind: str
    needles: tuple[str, ...]
    """Texts of which a secret of this form holds one: what is looked for first, because it costs little."""
    pattern: re.Pattern[str]
    """Group 1 is the part that is secret."""


_PLACEHOLDERS = re.compile(
    r"example|placeholder|your|change.?me|dummy|sample|passw|p@ss|xxx|\*\*\*|\.\.\.|abcdef|123456|<|\$\{|\{\{|%\(",
    re.IGNORECASE,
)


def _is_random(text: str) -> bool:
    return len(set(text)) >= 8 and _PLACEHOLDERS.search(text) is None


def _is_password(text: str) -> bool:
    if not _is_random(text) or not any(map(str.isalpha, text)) or not any(map(str.isdigit, text)):
        return False
    shares = [count / len(text) for count in Counter(text).values()]
    return -sum(share * math.log2(share) for share in shares) >= 3.0  # entropy of characters (Shannon 1948), in bits


_FORMS = (
    _Form("aws_key", ("AKIA", "ASIA"), re.compile(r"\b((?:AKIA|ASIA)[A-Z2-7]{16})\b")),
    _Form("google_key", ("AIza",), re.compile(r"\b(AIza[\w-]{35})(?![\w-])")),
    _Form("google_secret", ("GOCSPX-",), re.compile(r"\b(GOCSPX-[\w-]{28})(?![\w-])")),
    _Form("azure_key", ("AccountKey=",), re.compile(r"\bAccountKey=([A-Za-z0-9+/]{86}==)")),
    _Form(
        "github_token",
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
        re.compile(r"\b(gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_\w{60,255})\b"),
    ),
    _Form("gitlab_token", ("glpat-",), re.compile(r"\b(glpat-[\w-]{20,64})(?![\w-])")),
    _Form("slack_token", ("xox",), re.compile(r"\b(xox[abeprs]-(?=[A-Za-z-]{0,200}\d)[A-Za-z0-9-]{20,250})\b")),
    _Form(
        "slack_hook",
        ("hooks.slack.com/services/",),
        re.compile(r"hooks\.slack\.com/services/(T[A-Z0-9]{6,12}/B[A-Z0-9]{6,12}/[A-Za-z0-9]{20,30})\b"),
    ),
    _Form("stripe_key", ("k_live_",), re.compile(r"\b([sr]k_live_[A-Za-z0-9]{16,255})\b")),
    _Form("anthropic_key", ("sk-ant-",), re.compile(r"\b(sk-ant-[\w-]{32,255})(?![\w-])")),
    _Form(
        "openai_key",
        ("sk-",),
        re.compile(
            r"\b(sk-(?:[A-Za-z0-9]{48}|[A-Za-z0-9]{20}T3BlbkFJ\w{20}|(?:proj|svcacct|admin)-[\w-]{40,255}))(?![\w-])"
        ),
    ),
    _Form("huggingface_token", ("hf_",), re.compile(r"\b(hf_[A-Za-z0-9]{34,40})\b")),
    _Form("npm_token", ("npm_",), re.compile(r"\b(npm_[A-Za-z0-9]{36})\b")),
    _Form("pypi_token", ("pypi-AgEI",), re.compile(r"\b(pypi-AgEI[\w-]{50,255})")),
    _Form("sendgrid_key", ("SG.",), re.compile(r"\b(SG\.[\w-]{22}\.[\w-]{43})(?![\w-])")),
    _Form("jwt", ("eyJ",), re.compile(r"\b(eyJ[\w-]{10,2000}\.eyJ[\w-]{10,4000}\.[\w-]{20,1000})")),
    _Form(
        "private_key",
        ("PRIVATE KEY",),
        re.compile(
            r"-----BEGIN (?:[A-Z]{2,10} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
            r"((?:\s|\\[nr]|(?:Proc-Type|DEK-Info|Version|Comment): [^\n]{0,80}\n){1,9}[A-Za-z0-9+/=]{32,100})"
        ),
    ),
)
_RUN = bytes(0x61 if chr(i).isascii() and (chr(i).isalnum() or i in b"_-+/") else 0x20 for i in range(256))
"""Maps whatever keys are made of to `a`; every form above holds a run of at least 20."""

_ASSIGNED = re.compile(r"[:=>][ \t]{0,4}[\"'`]([^\s\"'`]{10,128})[\"'`]")
_NAME = re.compile(
    r"(?<![A-Za-z])(?:password|passwd|passwort|pwd|secret|(?:client|app|api)[_-]?secret|(?:secret|access)[_-]?key"
    r"|api[_-]?key|(?:access|auth|api|bearer)[_-]?token)[\"'`]?[ \t]{0,4}[:=]?$",
    re.IGNORECASE,
)


def secrets(text: str) -> Iterator[Hit]:
    """Yield what must not be in training data because it opens something; the kind says what."""
    if b"a" * 20 in text.encode("utf-8", "surrogatepass").translate(_RUN):
        for form in _FORMS:
            if any(needle in text for needle in form.needles):
                for match in form.pattern.finditer(text):
                    if form.kind == "private_key" or _is_random(match.group(1)):
                        yield Hit(form.kind, *match.span(1))
    if ":" in text or "=" in text:
        for match in _ASSIGNED.finditer(text):
            if _NAME.search(text[max(match.start() - 40, 0) : match.start()]) and _is_password(match.group(1)):
                yield Hit("password", *match.span(1))
