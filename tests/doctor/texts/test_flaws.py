"""Rules on single texts: what they find, what they leave alone, what they show, and that they stay linear."""

from __future__ import annotations

import base64
import gzip
import json
from collections import Counter

import pytest

from bounds import hang_after
from tiebreak.doctor.texts.flaws import MAX_EXCERPT, TEXT_RULES, flaws, masked, without_hidden
from tiebreak.doctor.texts.personal import luhn, mod_97

LETTERS = "qZ7xK2mVw9RtB4nLc8YpH3dJf6GsT5aQe1uWi0oPzXkM"


def kinds(text, code, **given):
    return [flaw.kind for flaw in flaws(text, **given) if flaw.code == code]


# ------------------------------------------------------------------------------------------------------ control tokens


@pytest.mark.parametrize(
    "token",
    [
        "<|im_start|>",
        "<|im_end|>",
        "<|endoftext|>",
        "<|eot_id|>",
        "<|start_header_id|>",
        "<|user|>",
        "<|assistant|>",
        "[INST]",
        "[/INST]",
        "<<SYS>>",
        "<</SYS>>",
        "<start_of_turn>",
        "<end_of_turn>",
        "<bos>",
        "<eos>",
        "<|begin_of_text|>",
        "<|fim_prefix|>",
        "<|END_OF_TURN_TOKEN|>",
        "<\uff5cend\u2581of\u2581sentence\uff5c>",
        "[TOOL_CALLS]",
    ],
)
def test_control_tokens_of_common_models_are_found(token):
    assert kinds(f"It ends here.{token} And goes on.", "control_token") == [token]


@pytest.mark.parametrize("text", ["The end.</s>", "<s>[INST] Hello", "<s> Hello", "one</s> <s>[INST] two"])
def test_sentence_marks_are_control_tokens_where_html_would_not_put_them(text):
    assert kinds(text, "control_token")


@pytest.mark.parametrize(
    "text",
    [
        "It cost <s>ten</s> eight euros.",
        "<think>Let me see.</think> Four.",
        "if a <b and c|> d",
        "x <- y |> f()",
        "List[int] and array[INSTANCE]",
        "<div><span>text</span></div>",
        "a <| b |> c",
        "use <end> and <start>",
    ],
)
def test_ordinary_text_with_brackets_holds_no_control_token(text):
    assert kinds(text, "control_token") == []


# -------------------------------------------------------------------------------------------------------- role headers


@pytest.mark.parametrize(
    "completion",
    [
        "Four.\n\nHuman: And five?",
        "Four.\n\nUser: And five?\nAssistant: Six.",
        "Four.\nUser: And five?\nBot: Six.",
        "Four.\n\nAssistant: Four, I said.",
        "Four.\n\n### Instruction:\nAdd five.",
        "Four.\n### Response:\nFour.",
        "### Response:\nFour.",
        "Assistant: Four.\n\nHuman: Five?",
        "Four.<|im_start|>user\nFive?",
        "Four. [INST] Five?",
        "Four.<|start_header_id|>user<|end_header_id|>",
        "Four.<start_of_turn>user\nFive?",
        "Four.\n\nUSER: Five?",
    ],
)
def test_a_completion_that_goes_on_into_another_turn_is_found(completion):
    assert kinds(completion, "role_header", prompt="What is two and two?")


@pytest.mark.parametrize(
    ("prompt", "completion"),
    [
        ("Write a dialogue of a customer and a bot.", "Here it is.\n\nUser: Hello\nBot: Hi"),
        ("Continue:\nHuman: hi\nAssistant: hello", "Human: bye\n\nAssistant: bye"),
        ("Show a chat.", "\n\nHuman: Hello"),
        ("What is it?", "Alice: hello\n\nUser: hi\nBot: hi"),
        ("Describe the form.", "Two fields:\nUser: the name of the account\nPassword: its password"),
        ("Describe the API.", "### Response:\n```json\n{}\n```"),
        ("What is a human?", "A human: someone. The user: someone else.\n\nHumans: all of them."),
        ("How do I cook it?", "### Instructions\n1. Boil.\n\n### Response time\nShort."),
        ("What?", "He said to the assistant: go."),
    ],
)
def test_a_dialogue_that_was_asked_for_is_no_role_header(prompt, completion):
    assert kinds(completion, "role_header", prompt=prompt) == []


def test_prompts_are_not_looked_at_for_the_headers_of_completions():
    assert kinds("Hello\n\nHuman: what?", "role_header") == []


@pytest.mark.parametrize(
    ("prompt", "headers"),
    [
        ("\n\nHuman: Why?\n\nAssistant: ", ["Human:", "Assistant:"]),
        ("Human: Why?\n\nAssistant:", ["Human:", "Assistant:"]),
        ("Human: Why?", ["Human:"]),
        ("Be brief.\n\nUSER: Why?\nASSISTANT: Because.\nUSER: And how?\nASSISTANT:", ["USER:", "ASSISTANT:"]),
        ("Below is a task.\n\n### Instruction:\nSay why.\n\n### Response:\n", ["### Instruction:", "### Response:"]),
        ("Why?\n\nAssistant:", ["Assistant:"]),
        ("<|im_start|>user\nWhy?<|im_end|>", ["<|im_start|>user"]),
        ("[INST] Why? [/INST]", ["[INST]"]),
        ("<start_of_turn>user\nWhy?<end_of_turn>", ["<start_of_turn>user"]),
    ],
)
def test_a_prompt_that_is_a_transcript_is_told_by_its_headers(prompt, headers):
    assert kinds(prompt, "role_header_in_prompt") == headers
    assert kinds(prompt, "role_header") == []


@pytest.mark.parametrize(
    "prompt",
    [
        "Hello\n\nHuman: what?",
        "Continue this conversation:\nUser: hi\nAssistant: hello\nUser: bye",
        "Fields:\nUser: the name of the account\nPassword: its password",
        "What does an AI: do, and what is a Human: good for?",
        "### Instructions\n1. Boil.\n\n### Response time\nShort.",
        "Write Python:\n```\nUser = 3\n```",
    ],
)
def test_a_prompt_that_speaks_of_turns_is_no_transcript(prompt):
    assert kinds(prompt, "role_header_in_prompt") == []


# --------------------------------------------------------------------------------------------------------- hidden text


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("a\x00b", "control"),
        ("a\x1b[31mb", "control"),
        ("a\x0cb", "control"),
        ("a\u202eb", "bidi"),
        ("a\u2066b", "bidi"),
        ("a\u200fb", "bidi"),
        ("a\u200bb", "zero_width"),
        ("a\u200db", "zero_width"),
        ("a\u2060b", "zero_width"),
        ("\ufeffab", "zero_width"),
        ("a\u200cb", "zero_width"),
        ("a\U000e0041b", "tag"),
    ],
)
def test_hidden_characters_are_found_and_removed(text, kind):
    assert kinds(text, "hidden_text") == [kind]
    assert without_hidden(text).replace("[31m", "") == "ab"


@pytest.mark.parametrize(
    "text",
    [
        "tabs\tand\r\nlines",
        "👨\u200d👩\u200d👧",
        "❤️\u200d🔥",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "क्\u200dष",
        "א\u200f!",
        "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
        "ไทย\u200bไทย",
        "🏃🏽\u200d♀️",
        "café “quoted” — 你好",
    ],
)
def test_characters_that_a_script_or_an_emoji_needs_are_left_alone(text):
    assert kinds(text, "hidden_text") == []
    assert without_hidden(text) is text


def test_removing_hidden_text_is_final():
    text = "\u200ba\u200d\u202eb\U0001f3f4\u200d\x00c\ufeff"
    assert flaws(without_hidden(text)) == []
    assert without_hidden("\u200b") == ""


# -------------------------------------------------------------------------------------------------------------- secrets

SECRETS = {
    "aws_key": "AKIA" + "Q3ZK7XMVWRTB4NLC",
    "google_key": "AIza" + LETTERS[:35],
    "github_token": "ghp_" + LETTERS[:36],
    "gitlab_token": "glpat-" + LETTERS[:20],
    "slack_token": "xoxb-" + "2310947561-" + LETTERS[:24],
    "stripe_key": "sk_live_" + LETTERS[:24],
    "openai_key": "sk-proj-" + LETTERS + "9fL2kQ",
    "anthropic_key": "sk-ant-" + "api03-" + LETTERS,
    "huggingface_token": "hf_" + LETTERS[:34],
    "npm_token": "npm_" + LETTERS[:36],
    "sendgrid_key": "SG." + LETTERS[:22] + "." + LETTERS[:43],
    "jwt": "eyJ" + "hbGciOiJIUzI1NiJ9." + "eyJ" + "zdWIiOiI3MTYyIn0." + LETTERS[:43],
    "azure_key": "AccountKey=" + LETTERS + LETTERS[:42] + "==",
    "telegram_token": "7310" + "294651:AA" + LETTERS[:33],
    "twilio_key": "SK" + "9f86d081884c7d659a2feaa0c55ad015",
    "slack_app_token": "xapp-1-" + "A03KQZ7XMV-2310947561234-" + "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b",
    "discord_token": "MTE3" + LETTERS[:21] + ".Gq7Zx2." + LETTERS[5:39],
    "service_key": "gsk_" + LETTERS,
}


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_is_found_and_masked(kind):
    (flaw,) = flaws(f"Set the key to {SECRETS[kind]} and run it.")
    assert (flaw.code, flaw.kind) == ("secret", kind)
    secret = SECRETS[kind].removeprefix("AccountKey=")
    assert secret[:2] + "…" in flaw.excerpt
    assert secret[:6] not in flaw.excerpt
    assert secret[-6:] not in flaw.excerpt


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("postgres://admin:k7Qv9zRt2wLp@db.brightwater.net:5432/shop", "url_password"),
        ("DATABASE_URL=mysql+pymysql://root:k7-Qv9zRt2w@10.0.0.7/app", "url_password"),
        ("git clone https://ingrid:k7Qv9zRt2wLp3@git.brightwater.net/a.git", "url_password"),
        ("redis://:k7Qv9zRt2wLp3@cache:6379", "url_password"),
        ("amqps://app:zRt2s3cr3ts@queue.brightwater.net", "url_password"),
        (f"curl -H 'Authorization: Bearer {LETTERS}' https://api.brightwater.net", "bearer_token"),
        (f'{{"Authorization": "bearer {LETTERS[:30]}"}}', "bearer_token"),
        ("Authorization: Basic " + base64.b64encode(b"ingrid:k7Qv9zRt2wLp").decode(), "basic_auth"),
        ("aws_secret_access_key = " + LETTERS[:40], "aws_secret"),
        ('"SecretAccessKey": "' + LETTERS[:40] + '"', "aws_secret"),
        ("export DB_PASSWORD=k7Qv9zRt2wLp", "password"),
        ("OPENAI_API_KEY=k7Qv9zRt2wLp3XyZ\n", "password"),
        ("Server=db;User Id=sa;Password=k7#Qv9!zRt2w;", "password"),
        ("https://api.brightwater.net/v1?access_token=k7Qv9zRt2wLp3XyZ", "password"),
        ("sk-or-v1-" + "9f86d081884c7d659a2feaa0c55ad015" * 2, "openai_key"),
        ("gho_" + LETTERS[:36], "github_token"),
        ("github_pat_" + LETTERS + LETTERS[:38], "github_token"),
        ("ASIA" + "Q3ZK7XMVWRTB4NLC", "aws_key"),
        ("glrt-" + LETTERS[:20], "gitlab_token"),
        ("hvs." + LETTERS[:24], "service_key"),
        ("dop_v1_" + "9f86d081884c7d659a2feaa0c55ad015" * 2, "service_key"),
    ],
)
def test_secrets_are_found_in_what_people_paste(text, kind):
    assert kinds(f"It says: {text}", "secret") == [kind]
    assert not [piece for piece in ("zRt2", LETTERS[3:20]) if piece in masked(text)]


@pytest.mark.parametrize("label", ["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED "])
def test_a_private_key_is_found(label):
    text = f"-----BEGIN {label}PRIVATE KEY-----\n{LETTERS[:40]}\n{LETTERS[:40]}\n-----END {label}PRIVATE KEY-----"
    assert kinds(text, "secret") == ["private_key"]


INNER = [f"{n}{LETTERS[n : n + 40]}{n}" for n in range(6)]
HEAD, FOOT = "-----BEGIN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    "text",
    [
        "\n".join([HEAD, *INNER, FOOT]),
        "\r\n".join([HEAD, *INNER, FOOT]),
        "\\n".join([HEAD, *INNER, FOOT]),
        "\\\\n".join([HEAD, *INNER, FOOT]),
        " ".join([HEAD, *INNER, FOOT]),
        "".join([HEAD, *INNER, FOOT]),
        "\n> ".join([HEAD, *INNER, FOOT]),
        '\\n"\n  "'.join([HEAD, *INNER, FOOT]),
        "\n".join([HEAD, *INNER]),
        "\\n".join([HEAD, *INNER]),
        "\n".join([HEAD, "Proc-Type: 4,ENCRYPTED", "DEK-Info: AES-128-CBC,9F86", "", *INNER, FOOT]),
        "\\n".join([HEAD, "Proc-Type: 4,ENCRYPTED", "DEK-Info: AES-128-CBC,9F86", "", *INNER]),
        "\n".join([HEAD, *INNER, "", "and here it breaks off"]),
        "\n".join([*INNER, FOOT]),
        "\\n".join([*INNER, FOOT]),
        "\\r\\n".join([HEAD, *INNER, FOOT]),
        "\\\\r\\\\n".join([HEAD, *INNER]),
        "\\r\\n".join([HEAD, "Proc-Type: 4,ENCRYPTED", "DEK-Info: AES-128-CBC,9F86", "", *INNER, FOOT]),
        "\\n".join([HEAD.replace("KEY", "KEY BLOCK"), "", *INNER, FOOT.replace("KEY", "KEY BLOCK")]),
        "\r\n".join([HEAD.replace("KEY", "KEY BLOCK"), "Version: GnuPG v2", "", *INNER]),
        "\r\n".join([*INNER[1:], "Qk==", FOOT]),
        "\n".join(["---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----", *INNER, "---- END SSH2 ENCRYPTED PRIVATE KEY ----"]),
    ],
)
def test_no_line_of_a_private_key_is_shown_however_it_is_written_or_cut_off(text):
    assert kinds(f"My key: {text}", "secret") == ["private_key"]
    (flaw,) = flaws(f"My key: {text}")
    for shown in (masked(f"My key: {text}"), flaw.excerpt):
        assert not [line for line in INNER if line[3:9] in shown or line[-9:-3] in shown]


@pytest.mark.parametrize("length", [10, 1500, 2500])
def test_a_secret_that_two_forms_know_is_masked_to_the_end_of_both(length):
    token = f"eyJ{'hbGciOiJIUzI1NiJ9'}.eyJ{'zdWIiOiI3MTYy' * (length // 10)}.{LETTERS[:30]}Zq8Zq8"
    for text in (f"Authorization: Bearer {token} as I said", f"Bearer {token}", f'api_key = "{SECRETS["jwt"]}Zq8Zq8"'):
        assert "Zq8" not in masked(text)
        assert "zdWI" not in masked(text)
        assert not [one for one in flaws(text) if "Zq8" in one.excerpt or "zdWI" in one.excerpt]


def test_an_excerpt_masks_a_secret_within_another_once():
    text = f"mail https://ingrid:{LETTERS[:20]}@mail.brightwater.net now {LETTERS[:4]}"
    assert not [one for one in flaws(text) if LETTERS[4:12] in one.excerpt]
    text = f'secret: "postgres://app:{LETTERS[:12]}@db.brightwater.net/{LETTERS[:20]}"'
    for shown in (masked(text), *(one.excerpt for one in flaws(text))):
        assert LETTERS[4:10] not in shown


@pytest.mark.parametrize(
    "text",
    [
        'password = "k7#Qv9!zRt2w"',
        "PASSWORD: 'k7#Qv9!zRt2w'",
        '{"password": "k7#Qv9!zRt2w"}',
        "api_key='k7Qv9zRt2wLp3'",
        'DB_PASSWORD="k7#Qv9!zRt2w"',
        'client_secret => "k7#Qv9!zRt2w"',
        "auth-token := `k7Qv9zRt2wLp3`",
    ],
)
def test_a_password_that_is_written_out_is_found(text):
    assert kinds(text, "secret") == ["password"]


@pytest.mark.parametrize(
    "text",
    [
        "AKIA" + "IOSFODNN7EXAMPLE",
        "ghp_" + "x" * 36,
        "sk-" + "your-api-key-here-0123456789",
        "hf_" + "x" * 34,
        'password = "your_password"',
        'password = "password123"',
        'password = os.environ["DB_PASSWORD"]',
        "password: hunter2",
        'api_key = "YOUR_API_KEY_123"',
        'secret = "correct horse battery"',
        'token = "abcdefghij1234567890"',
        "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC...\n-----END PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\u2026\\n-----END PRIVATE KEY-----\\n",
        "-----BEGIN RSA PRIVATE KEY-----\n" + ("x" * 64 + "\n") * 8 + "-----END RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqh" + "X" * 47 + "\n-----END PRIVATE KEY-----",
        ("x" * 64 + "\n") * 8 + "-----END RSA PRIVATE KEY-----",
        "-----BEGIN PUBLIC KEY-----\n" + LETTERS,
        "a sha256 of 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "task-force sk-learn risk-averse",
        "https://a.org/wiki/Some_long_title_of_a_page_with_AKIA_in_it",
        'password = "{{ secret_1234 }}"',
        "postgres://user:password@localhost:5432/db",
        "postgres://postgres:postgres@db/app",
        "mongodb+srv://<username>:<password>@cluster0.mongodb.net",
        "mysql://user:${DB_PASSWORD_1}@host",
        "https://example.com:8443/a@b",
        "see https://host:80/path and write to a1b2c3d4e5@mail.net",
        "user:password@example.com",
        "Authorization: Bearer YOUR_ACCESS_TOKEN_1234567890",
        "Authorization: Bearer <token>",
        "the bearer of_this_very_long_snake_case_name",
        "Authorization: Basic dXNlcjpwYXNzd29yZA==",
        "Authorization: Basic authentication1234",
        "API_KEY=your-api-key-12345678",
        "API_KEY=$MY_API_KEY_1 TOKEN=config.token_v2.value",
        "export PASSWORD=changeme123456",
        "sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "sk-" + "0" * 32,
        "key-value-store-with-many-words fw_some_long_function_name_of_mine",
        "keyboardinterruptionhandlers9 EAAAlphabeticalorderings",
        "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "https://a.org/?token=example-token-123456",
        "MONDAY-TUESDAY-WEDNESDAY-AND.SUNDAY.thursdays-and-fridays-and-so-on",
        "eyJhbGciOi",
    ],
)
def test_placeholders_and_look_alikes_are_no_secrets(text):
    assert kinds(text, "secret") == []


# -------------------------------------------------------------------------------------------------------- personal data


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Write to maria.lopez@gmail.com today.", "email"),
        ("<p.k-77+news@mail.uni-graz.ac.at>", "email"),
        ("Call 212-867-5309 now", "phone"),
        ("Call (415) 867-5309.", "phone"),
        ("Call +1 415 867 5309", "phone"),
        ("Call 415.867.5309!", "phone"),
        ("Ring +49 30 901820.", "phone"),
        ("Ring +44 20 7219 4272 or write", "phone"),
        ("Ring +33142961020", "phone"),
        ("+380 44 364 55 10\n+380 44 364 55 85", "phone"),
        ("Card 4111 1111 1111 1111, please", "card"),
        ("5500-0055-5555-5559", "card"),
        ("my credit card number is 378282246310005", "card"),
        ("IBAN DE89 3704 0044 0532 0130 00", "iban"),
        ("to GB82WEST12345698765432", "iban"),
        ("SSN 123-45-6789", "ssn"),
        ("from 81.2.69.142 at noon", "ip"),
        ("ssh root@93.184.216.34", "ip"),
    ],
)
def test_personal_data_is_found_and_masked(text, kind):
    (flaw,) = flaws(text)
    assert (flaw.code, flaw.kind) == ("personal_data", kind)
    assert "…" in flaw.excerpt
    datum = max((word for word in text.split() if any(c.isdigit() or c == "@" for c in word)), key=len).strip(".,!<>")
    assert datum not in flaw.excerpt


@pytest.mark.parametrize(
    "text",
    [
        "jane@example.com",
        "a@mail.example.org",
        "root@host.test",
        "x@localhost.localdomain.invalid",
        "git@github.com:a/b",
        "logo@2x.png",
        "your.name@gmail.com",
        "user@domain.com",
        "@property def",
        "someone @ home",
        "john.doe@company.com",
        "Call 555-0123",
        "(212) 555-0198",
        "+1 415-555-0142",
        "800-273-8255",
        "1-888-555-1212",
        "123-456-7890",
        "in 2019-2020",
        "version 2.10.3.1",
        "1.2.3.4",
        "127.0.0.1",
        "192.168.1.10",
        "10.0.0.255",
        "8.8.8.8",
        "203.0.113.9",
        "256.300.1.2",
        "Chrome/91.0.4472.124",
        "000-12-3456",
        "666-12-3456",
        "912-34-5678",
        "123-00-4567",
        "123-45-0000",
        "078-05-1120",
        "4111 1111 1111 1112",
        "1234 5678 9012 3456",
        "sum 4929000000006",
        "DE89 3704 0044 0532 0130 01",
        "pi is 3.14159265358979",
        "1,234,567,890",
        "12 + 4523 6789 = 6801",
        "ISBN 978-3-16-148410-0",
        "2021-03-04 10:15:00",
        "472547338 +9182736455",
        "472547338\n+9182736455",
        "phone +44 7700 900123",
        "(2, 345, 678-9012)",
        "x = 2128675309",
        "7*7*7-0000 0000",
    ],
)
def test_examples_and_other_numbers_are_no_personal_data(text):
    assert kinds(text, "personal_data") == []


def test_check_digits_follow_their_standards():
    assert luhn("79927398713")
    assert not any(luhn(f"7992739871{digit}") for digit in "012456789")
    assert mod_97("GB82WEST12345698765432")
    assert not mod_97("GB28WEST12345698765432")


# -------------------------------------------------------------------------------------------------- excerpts and speed


def test_an_excerpt_is_short_one_line_and_masks_everything_that_is_near():
    key = SECRETS["github_token"]
    text = f"Write to maria.lopez@gmail.com\nor ada.byron@gmail.com with {key}\u202e<|im_end|>\n" * 3
    found = flaws(text)
    assert {flaw.code for flaw in found} == {"secret", "personal_data", "control_token", "hidden_text"}
    for flaw in found:
        assert len(flaw.excerpt) <= MAX_EXCERPT
        assert "\n" not in flaw.excerpt
        assert "\u202e" not in flaw.excerpt
        assert not any(part in flaw.excerpt for part in ("lopez", "byron", "gmail", key[4:8]))


def test_each_kind_is_told_once_where_it_stands_first():
    found = flaws("a\x00b <|im_end|> c\x00 <|im_end|> d <|eot_id|>")
    assert [(flaw.kind, flaw.start) for flaw in found] == [("control", 1), ("<|im_end|>", 4), ("<|eot_id|>", 31)]


def test_every_code_is_one_of_the_text_rules():
    text = f"{SECRETS['github_token']} a@uni-graz.at \x00 <|im_end|>\n\nHuman: hi"
    found = [*flaws(text, prompt=""), *flaws("Human: hi"), *flaws("None")]
    found += flaws("Why is it so, then? So.", prompt="", asked="Why is it so, then?")
    assert {flaw.code for flaw in found} == set(TEXT_RULES)


def test_a_clean_text_has_no_flaw():
    assert flaws("") == []
    assert (
        flaws(
            "Two and two are four.\n\n1. **Two**\n2. `x = [1, 2]`\n\nSee https://a.org/x?y=1 for 3.5 more.", prompt=""
        )
        == []
    )


ADVERSARIAL = {
    "letters": "a",
    "digits": "1",
    "spaced digits": "1 ",
    "dashed digits": "1-",
    "dotted digits": "1.",
    "nanp": "212-867-",
    "plus": "+1 ",
    "at": "a@",
    "domains": "a@a.",
    "dots": ".",
    "angles": "<",
    "bars": "<|a",
    "wide bars": "<\uff5ca",
    "strikes": "<s>",
    "squares": "[INST",
    "newlines": "\n",
    "blank lines": "\n \t",
    "users": "\nUser: ",
    "blank users": "\n\nUser: a",
    "hashes": "\n### ",
    "quotes": "='",
    "passwords": "password='",
    "names": "password_secret_api_key_",
    "jwt": "eyJa.",
    "jwt runs": "eyJ" + "a" * 30,
    "sk": "sk-",
    "xox": "xoxb-",
    "pem": "-----BEGIN PRIVATE KEY-----\n",
    "pem keys": f"-----BEGIN PRIVATE KEY-----\n{LETTERS[:40]}\n",
    "pem lines": f"{LETTERS[:40]}\n",
    "pem ends": f"{LETTERS[:40]}\n-----END PRIVATE KEY-----\n",
    "urls": "a://b:c",
    "url passwords": "https://user:abcdefghi",
    "environment": "A_PASSWORD=",
    "long names": "A_B_C_D_",
    "queries": "?token=&",
    "bearers": "Bearer a.b",
    "basic": "Authorization: Basic abcd",
    "dotted": "MTEa.MTEb-",
    "pem words": "-----BEGIN RSA ",
    "iban": "DE89 3704 ",
    "capitals": "AA00",
    "zero width": "\u200b",
    "joiners": "\u200d\U0001f468",
    "tags": "\U000e0041",
    "flags": "\U0001f3f4\U000e0041",
    "marks": "\u200f\u05d0",
    "mails": "a.b@gmail.com ",
}


@pytest.mark.parametrize("unit", ADVERSARIAL.values(), ids=ADVERSARIAL.keys())
def test_time_is_linear_on_a_million_characters(unit):
    text = unit * (1_000_000 // len(unit))
    with hang_after():  # a square of a million is hours
        flaws(text, prompt=text[:1000])
        without_hidden(text)


# ------------------------------------------------------------------------------------------------------------ real data


def _texts(shared, name):
    with gzip.open(shared / "data" / "prefs" / name, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_few_pairs_of_ultrafeedback_are_called_flawed(shared):
    counts = Counter()
    for row in _texts(shared, "ultrafeedback_binarized_1200.jsonl.gz"):
        texts = ((row["prompt"], None), (row["chosen"], row["prompt"]), (row["rejected"], row["prompt"]))
        counts.update({flaw.code for text, prompt in texts for flaw in flaws(text, prompt=prompt)})
    # Looked at one by one: four stray '</s>', a zero-width completion, embeddings and overrides, real addresses.
    assert counts == {"control_token": 4, "hidden_text": 3, "personal_data": 5, "role_header": 3}


def test_hh_holds_no_secret_and_little_else(shared):
    counts = Counter()
    for row in _texts(shared, "hh_harmless_base_test.raw.jsonl.gz"):
        for side in ("chosen", "rejected"):
            prompt, _, completion = row[side].rpartition("\n\nAssistant:")
            found = [*flaws(prompt), *flaws(completion, prompt=prompt)]
            counts.update({flaw.code for flaw in found})
    assert counts.pop("role_header_in_prompt") == len(_texts(shared, "hh_harmless_base_test.raw.jsonl.gz")) * 2
    assert set(counts) <= {"personal_data"}
    assert counts["personal_data"] <= 30


def test_masked_text_keeps_two_characters_of_what_is_secret():
    key = "sk-proj-" + "aB3dE5fG7hJ9kL1mN3pQ" * 2
    assert masked(f"Use {key}, or write to ingrid@brightwater-mills.co.uk.") == "Use sk…, or write to in…."
    assert masked("Nothing here.") == "Nothing here."
