"""Personal data in texts: e-mail addresses, telephone, card, account and social security numbers, IP addresses.

Owns the forms that count, with the checks that their issuers define, and what is only an example: addresses of the
domains that are reserved for examples, numbers that are never given to a person. It looks at forms, not at people.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from tiebreak.doctor.texts.controls import Hit

_SKELETON = bytes(
    0x30 if 0x30 <= i <= 0x39 else 0x41 if 0x41 <= i <= 0x5A else i if i in b" .-()+" else 0x78 for i in range(256)
)
"""Maps digits to 0, capitals to A, keeps what stands between the digits of numbers, and anything else is x."""


def personal_data(text: str) -> Iterator[Hit]:
    """Yield personal data; the kind is email, phone, card, iban, ssn or ip."""
    if "@" in text:
        yield from _emails(text)
    skeleton = text.encode("utf-8", "surrogatepass").translate(_SKELETON)
    num_digits = skeleton.count(b"0")
    if num_digits < 5:
        return
    if b"000-00-0000" in skeleton:
        yield from (Hit("ssn", *match.span()) for match in _SSN.finditer(text) if match.group() not in _RETIRED_SSNS)
    if num_digits >= 10 and (b"000" in skeleton):
        yield from _phones(text, skeleton)
    if num_digits >= 13:
        yield from _accounts(text, skeleton)
    if skeleton.count(b"0.0") >= 2:
        yield from _addresses(text)


# --------------------------------------------------------------------------------------------------------- e-mail

_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,6}[A-Za-z]{2,24}(?![A-Za-z0-9@-])"
)
_EXAMPLE_DOMAIN = re.compile(
    r"(?:^|[.@])(?:example\.(?:com|org|net|edu)|[\w.-]*\.?(?:example|test|invalid|localhost|local|internal))$"
    r"|\.(?:png|jpe?g|gif|svg|webp|css|js|py|html?|txt|json)$",
    re.IGNORECASE,
)
_EXAMPLE_NAME = re.compile(
    r"git|user(?:name)?\d?|(?:your|my)?[._-]?(?:e?mail|name)(?:[._-]?address)?|your[\w.-]*|someone|somebody|"
    r"(?:john|jane)?[._-]?(?:doe|smith)|first(?:name)?[._-]last(?:name)?|example|test(?:user)?\d?|no-?reply",
    re.IGNORECASE,
)
_EXAMPLE_HOST = re.compile(
    r"(?:your|my|some|the|our)?-?(?:domain|company|email|website|site|business|organi[sz]ation|example)(?:name)?"
    r"\.(?:com|org|net)",
    re.IGNORECASE,
)


def _emails(text: str) -> Iterator[Hit]:
    for match in _EMAIL.finditer(text):
        name, _, domain = match.group().partition("@")
        example = _EXAMPLE_NAME.fullmatch(name) or _EXAMPLE_HOST.fullmatch(domain) or _EXAMPLE_DOMAIN.search(domain)
        if not example:
            yield Hit("email", *match.span())


# ------------------------------------------------------------------------------------------------------ telephone

_NANP = re.compile(
    r"(?<![\w.+$#/-])(?:\+?1[ .-]?)?(?:\((?P<a>[2-9]\d\d)\)[ -]?|(?P<b>[2-9]\d\d)[ .-])"
    r"(?P<exchange>[2-9]\d\d)[ .-](?P<line>\d{4})(?![\w-]|\.\d)"
)
_INTERNATIONAL = re.compile(
    r"(?<![\w.+)\]=-])\+(?!1\b|1[2-9]\d\d)[1-9]\d{0,2}(?:[ .-]?\(?\d{1,5}\)?){1,6}(?![\w]|[.,-]\d)"
)
_NUMBER_BEFORE = re.compile(r"\d\s{0,6}\Z")
"""What makes a plus sign an addition."""
_TOLL_FREE = {"800", "833", "844", "855", "866", "877", "888", "900", "555", "911"}
_DRAMA = re.compile(r"447700900\d{3}|44(?:20794|1134960|1174960|1214960|1414960|1514960|1614960)\d+")


def _phones(text: str, skeleton: bytes) -> Iterator[Hit]:
    if any(part in skeleton for part in (b"000-0000", b"000 0000", b"000.0000")):
        for match in _NANP.finditer(text):
            area, exchange = match["a"] or match["b"], match["exchange"]
            example = exchange == "555" or exchange[1:] == "11" or area + exchange + match["line"] == "9876543210"
            if not example and area not in _TOLL_FREE:
                yield Hit("phone", *match.span())
    last = 0
    for match in _INTERNATIONAL.finditer(text) if b"+0" in skeleton else ():
        digits = re.sub(r"\D", "", match.group())
        added = _NUMBER_BEFORE.search(text, max(match.start() - 8, last), match.start()) is not None
        if not added and 9 <= len(digits) <= 15 and len(set(digits)) > 3 and not _DRAMA.fullmatch(digits):
            last = match.end()
            yield Hit("phone", *match.span())


# -------------------------------------------------------------------------------------- cards, accounts, security

_CARD = re.compile(r"(?<![\w.+-])\d(?:[ -]?\d){12,18}(?![\w-]|\.\d)")
_CARD_WORDS = re.compile(r"\bcards?\b|visa|master|amex|american express|discover|credit|debit|cvv|cvc", re.IGNORECASE)
_ISSUED = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"
    r"|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}|(?:6011|65\d\d|64[4-9]\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}"
)
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])")
_IBAN_LENGTHS = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29 ES24 FI18 "
    "FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 "
    "LU20 LV21 MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 SA24 SE24 SI19 SK24 "
    "SM27 TN24 TR26 UA29 VA22 VG24 XK20"
)
_LENGTH_OF = {entry[:2]: int(entry[2:]) for entry in _IBAN_LENGTHS.split()}
_SSN = re.compile(r"(?<![\w.+-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-]|\.\d)")
_RETIRED_SSNS = {"078-05-1120", "219-09-9999", "457-55-5462"}


def _accounts(text: str, skeleton: bytes) -> Iterator[Hit]:
    if b"0" * 13 in skeleton.replace(b" ", b"").replace(b"-", b""):
        for match in _CARD.finditer(text):
            digits = match.group().replace(" ", "").replace("-", "")
            stated = digits != match.group() or _CARD_WORDS.search(text, max(match.start() - 80, 0), match.end() + 40)
            if stated and _ISSUED.fullmatch(digits) and luhn(digits):
                yield Hit("card", *match.span())
    for match in _IBAN.finditer(text) if b"AA00" in skeleton else ():
        account = match.group().replace(" ", "")
        if len(account) == _LENGTH_OF.get(account[:2]) and mod_97(account):
            yield Hit("iban", *match.span())


def luhn(digits: str) -> bool:
    """Say whether the check digit of a card number is right (ISO/IEC 7812-1, annex B)."""
    doubled = [int(digit) * (2 if index % 2 else 1) for index, digit in enumerate(reversed(digits))]
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


def mod_97(account: str) -> bool:
    """Say whether the check digits of an IBAN are right (ISO 13616, ISO 7064 MOD 97-10)."""
    return int("".join(str(int(character, 36)) for character in account[4:] + account[:4])) % 97 == 1


# ------------------------------------------------------------------------------------------------------ addresses

_IPV4 = re.compile(r"(?<![\w.+-])\d{1,3}(?:\.\d{1,3}){3}(?![\w-]|\.\d)")
_VERSION = re.compile(r"(?:version|release|build|firmware|update|section|chapter|\bv)[ .:]{0,2}$", re.IGNORECASE)
_RESOLVERS = {"8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9", "208.67.222.222", "208.67.220.220"}


def _addresses(text: str) -> Iterator[Hit]:
    for match in _IPV4.finditer(text):
        octets = match.group().split(".")
        if _VERSION.search(text[max(match.start() - 12, 0) : match.start()]):
            continue
        try:
            address = ipaddress.IPv4Address(match.group())
        except ValueError:
            continue
        public = address.is_global and not address.is_multicast
        if public and any(len(octet) > 1 for octet in octets) and match.group() not in _RESOLVERS:
            yield Hit("ip", *match.span())
