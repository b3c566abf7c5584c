"""Secrets in texts: keys, tokens, private keys, passwords that are written out.

Owns the forms that count and what is only a placeholder. Conservative: a finding of this rule stops a run, so a form
needs its own prefix, or quotes, a name and the look of chance. It knows nothing of who issued what or whether it works.
"""

from __future__ import annotations

import math
import re
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tiebreak.doctor.texts.controls import Hit
from tiebreak.secrecy import BETWEEN, PEM_LABEL

_PLACEHOLDERS = re.compile(
    r"example|placeholder|your|change.?me|dummy|sample|passw|p@ss|xxx|\*\*\*|\.\.\.|abcdef|123456|<|\$\{|\{\{|%\(",
    re.IGNORECASE,
)


def _is_random(text: str) -> bool:
    return len(set(text)) >= 8 and _PLACEHOLDERS.search(text) is None


def _is_mixed(text: str) -> bool:
    return any(map(str.isalpha, text)) and any(map(str.isdigit, text)) and _PLACEHOLDERS.search(text) is None


def _is_password(text: str) -> bool:
    if not _is_random(text) or not _is_mixed(text):
        return False
    shares = [count / len(text) for count in Counter(text).values()]
    return -sum(share * math.log2(share) for share in shares) >= 3.0  # entropy of characters (Shannon 1948), in bits


_LEFT_OUT = re.compile(r"\.\.\.|\u2026|[xX]{8}|\*{3}")
_SHORTEST_KEY = 64
"""Characters of the shortest private key in use (Ed25519)."""


def _is_key(body: str) -> bool:
    """Whether a private key has its characters, where a manual writes its first ones and leaves the others out."""
    before = _LEFT_OUT.split(body, maxsplit=1)[0]
    written = re.sub(r"[^A-Za-z0-9+/]", "", before)
    return len(set(written)) >= 8 and (before == body or len(written) >= _SHORTEST_KEY)


class _Form(NamedTuple):
    kind: str
    needles: tuple[str, ...]
    """Texts of which a secret of this form holds one: what is looked for first, because it costs little."""
    pattern: re.Pattern[str]
    """Group 1 is the part that is secret."""
    looks_real: Callable[[str], bool] = _is_random


_SERVICES = (
    *("gsk_", "xai-", "r8_", "pplx-", "nvapi-", "tgp_v1_", "fw_", "csk-", "jina_", "tvly-", "fc-"),  # models
    *("dop_v1_", "doo_v1_", "dor_v1_", "dapi", "sbp_", "sb_secret_", "pscale_tkn_", "neon_api_", "rnd_"),  # clouds
    *(
        "dckr_pat_",
        "lin_api_",
        "ntn_",
        "figd_",
        "PMAK-",
        "sntrys_",
        "sntryu_",
        "glsa_",
        "NRAK-",
        "phx_",
        "pat-",
    ),  # tools
    *("shpat_", "shpss_", "shpca_", "shppa_", "sq0atp-", "sq0csp-", "EAAA", "key-", "hvs.", "hvb.", "ATATT3"),
    "AGE-SECRET-KEY-1",
)
"""What keys of services begin with that name themselves; letters and digits follow."""

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
    _Form(
        "gitlab_token",
        ("glpat-", "gldt-", "glrt-", "glft-", "glptt-", "glcbt-"),
        re.compile(r"\b(gl(?:pat|dt|rt|ft|ptt|cbt)-[\w.-]{20,64})(?![\w-])"),
    ),
    _Form(
        "aws_secret",
        ("ecret", "ECRET"),
        re.compile(
            r"(?i:aws_?secret_?(?:access_?)?key|secret_?access_?key)[\"']?[ \t]{0,4}[:=]>?[ \t]{0,4}[\"']?"
            r"([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])"
        ),
    ),
    _Form("slack_app_token", ("xapp-",), re.compile(r"\b(xapp-\d-[A-Z0-9]{8,12}-\d{8,14}-[a-f0-9]{40,80})\b")),
    _Form("slack_token", ("xox",), re.compile(r"\b(xox[abeprs]-(?=[A-Za-z-]{0,200}\d)[A-Za-z0-9-]{20,250})\b")),
    _Form(
        "slack_hook",
        ("hooks.slack.com/services/",),
        re.compile(r"hooks\.slack\.com/services/(T[A-Z0-9]{6,12}/B[A-Z0-9]{6,12}/[A-Za-z0-9]{20,30})\b"),
    ),
    _Form(
        "stripe_key",
        ("k_live_", "whsec_"),
        re.compile(r"\b([sr]k_live_[A-Za-z0-9]{16,255}|whsec_[A-Za-z0-9]{32,64})\b"),
    ),
    _Form("anthropic_key", ("sk-ant-",), re.compile(r"\b(sk-ant-[\w-]{32,255})(?![\w-])")),
    _Form(
        "openai_key",
        ("sk-",),
        re.compile(
            r"\b(sk-(?:[A-Za-z0-9]{48}|[A-Za-z0-9]{20}T3BlbkFJ\w{20}|(?:proj|svcacct|admin|None)-[\w-]{40,255}"
            r"|or-v1-[a-f0-9]{64}|[a-f0-9]{32}))(?![\w-])"
        ),
    ),
    _Form("huggingface_token", ("hf_",), re.compile(r"\b(hf_[A-Za-z0-9]{34,40})\b")),
    _Form("npm_token", ("npm_",), re.compile(r"\b(npm_[A-Za-z0-9]{36})\b")),
    _Form("pypi_token", ("pypi-AgEI",), re.compile(r"\b(pypi-AgEI[\w-]{50,255})")),
    _Form("twilio_key", ("SK",), re.compile(r"\b(SK[0-9a-f]{32})\b")),
    _Form("telegram_token", (":AA",), re.compile(r"\b(\d{8,10}:AA[\w-]{33})(?![\w-])")),
    _Form(
        "discord_token", (".",), re.compile(r"\b([MNO](?=[\w-]{0,24}\d)[\w-]{23,25}\.[\w-]{6}\.[\w-]{27,38})(?![\w-])")
    ),
    _Form(
        "service_key",
        _SERVICES,
        re.compile(rf"\b((?:{'|'.join(map(re.escape, _SERVICES))})[A-Za-z0-9]{{20,255}})(?![\w-])"),
        _is_password,
    ),
    _Form(
        "bearer_token",
        ("earer ", "EARER "),
        re.compile(r"\b(?i:bearer) {1,4}((?=[A-Za-z._~+/=-]{0,200}\d)[A-Za-z0-9._~+/-]{20,2000}={0,2})"),
    ),
    _Form("sendgrid_key", ("SG.",), re.compile(r"\b(SG\.[\w-]{22}\.[\w-]{43})(?![\w-])")),
    _Form("jwt", ("eyJ",), re.compile(r"\b(eyJ[\w-]{10,2000}\.eyJ[\w-]{10,4000}\.[\w-]{20,1000})")),
    _Form(
        "private_key",
        ("PRIVATE KEY",),
        re.compile(  # a key whose end is missing goes to the end of the text
            rf"-{{4,5}} ?BEGIN {PEM_LABEL} ?-{{4,5}}"
            rf"({BETWEEN}{{0,40}}+"
            rf"(?:(?:Proc-Type|DEK-Info|Version|Comment|Hash): [^\n]{{0,80}}?{BETWEEN}{{1,40}}+){{0,4}}"
            rf"[A-Za-z0-9+/=]{{32}}[\s\S]*?(?=-{{4,5}} ?END {PEM_LABEL}|\Z))"
        ),
        _is_key,
    ),
    _Form(
        "private_key",
        ("PRIVATE KEY",),
        re.compile(  # one whose beginning is missing
            rf"(?<![A-Za-z0-9+/=])([A-Za-z0-9+/=]{{32,100}}+(?:{BETWEEN}{{1,40}}+[A-Za-z0-9+/=]{{4,100}}+){{0,400}}+)"
            rf"{BETWEEN}{{0,40}}+-{{4,5}} ?END {PEM_LABEL}"
        ),
        _is_key,
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


_DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")


def _is_written_out(value: str) -> bool:
    """Whether a value without quotes is a password, and not the name of something that holds one."""
    return _is_password(value) and _DOTTED.fullmatch(value) is None


def _opens(encoded: str) -> bool:
    """Whether the credentials of HTTP's basic scheme hold a password that is none of a manual."""
    try:
        name, _, password = b64decode(encoded, validate=True).decode("utf-8").partition(":")
    except ValueError:
        return False
    return bool(name) and _is_password(password)


_WRITTEN = (
    _Form(
        "password",
        ("=",),
        re.compile(  # in the environment of a process
            r"(?<![\w$])(?:[A-Z][A-Z0-9]{0,30}_){0,6}"
            r"(?:PASSWORD|PASSWD|PWD|SECRET|TOKEN|(?:API|ACCESS|SECRET|PRIVATE|AUTH)_?KEY)"
            r"=([A-Za-z0-9_+/=!#%&*.@^~?-]{10,128})(?=[\s\"'`;,]|$)"
        ),
        _is_written_out,
    ),
    _Form(
        "password",
        ("=",),
        re.compile(  # in what a data base is opened with, or in the question of a URL
            r"(?:;[ \t]{0,4}(?i:password|pwd|shared_?access_?key|access_?key)"
            r"|[?&](?i:api_?key|(?:access_|auth_)?token|secret|password))=([^\s;&\"'<>{}()]{10,256})"
        ),
        _is_written_out,
    ),
    _Form(
        "url_password",
        ("://",),
        re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s:/@?#\"'<>]{0,64}:([^\s:/@?#\"'<>]{8,128})@[\w.\[-]"),
        lambda password: len(set(password)) >= 6 and _is_mixed(password),  # where nothing else can stand
    ),
    _Form(
        "basic_auth",
        ("asic ", "ASIC "),
        re.compile(
            r"(?i:authorization)[\"']?[ \t]{0,4}[:=][ \t]{0,4}[\"']?(?i:basic) {1,4}([A-Za-z0-9+/]{12,400}={0,2})"
        ),
        _opens,
    ),
)
"""Passwords by what stands around them, of whatever length."""


def secrets(text: str) -> Iterator[Hit]:
    """Yield what must not be in training data because it opens something; the kind says what."""
    has_key = b"a" * 20 in text.encode("utf-8", "surrogatepass").translate(_RUN)
    for form in (*_FORMS, *_WRITTEN) if has_key else _WRITTEN:
        if any(needle in text for needle in form.needles):
            for match in form.pattern.finditer(text):
                if form.looks_real(match.group(1)):
                    yield Hit(form.kind, *match.span(1))
    if ":" in text or "=" in text:
        for match in _ASSIGNED.finditer(text):
            if _NAME.search(text[max(match.start() - 40, 0) : match.start()]) and _is_password(match.group(1)):
                yield Hit("password", *match.span(1))
