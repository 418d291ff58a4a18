"""Secrets for tests: a sample of every kind, made of parts so that no scanner takes these lines for
the real thing, and different each time."""

from __future__ import annotations

import base64
import json
import random
import string
from collections.abc import Callable

LOWER, UPPER, DIGITS = string.ascii_lowercase, string.ascii_uppercase, string.digits
HEX, ALNUM = "0123456789abcdef", LOWER + UPPER + DIGITS
URLSAFE = ALNUM + "_-"


def of(alphabet: str, length: int, chance: random.Random) -> str:
    """So many characters; letters and digits both where the alphabet has both."""
    text = [chance.choice(alphabet) for _ in range(length)]
    for n, kind in enumerate((DIGITS, LOWER, UPPER)):
        if common := sorted(set(kind) & set(alphabet)):
            text[(n * 5 + 3) % length] = chance.choice(common)
    return "".join(text)


def _jwt(chance: random.Random) -> str:
    parts = ({"alg": "HS256", "typ": "JWT"}, {"sub": of(ALNUM, 12, chance), "admin": True})
    bodies = [base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts]
    return ".".join((*bodies, of(URLSAFE, 43, chance)))


def _private_key(chance: random.Random) -> str:
    lines = "\n".join(of(ALNUM + "+/", 64, chance) for _ in range(6))
    kind = chance.choice(("RSA ", "EC ", "OPENSSH ", ""))
    return f"-----{'BEGIN'} {kind}PRIVATE KEY-----\n{lines}\n-----{'END'} {kind}PRIVATE KEY-----"


def _simple(*parts: str | tuple[str, int]) -> Callable[[random.Random], str]:
    def make(chance: random.Random) -> str:
        return "".join(p if isinstance(p, str) else of(p[0], p[1], chance) for p in parts)

    return make


# kind -> how to make one; before and after a bar stands what is around it and need not go.
KINDS: dict[str, Callable[[random.Random], str]] = {
    "private-key": _private_key,
    "age-key": _simple("AGE-SECRET-", "KEY-1", (UPPER + DIGITS, 58)),
    "jwt": _jwt,
    "anthropic": _simple("sk-", "ant-api03-", (URLSAFE, 90)),
    "openrouter": _simple("sk-", "or-v1-", (HEX, 64)),
    "openai": _simple("sk-", "proj-", (ALNUM, 60)),
    "aws-access-key": _simple("AK", "IA", (UPPER + "234567", 16)),
    "aws-secret-key": _simple("aws_secret_", "access_key=|", (ALNUM + "/+", 40)),
    "github": _simple("gh", "p_", (ALNUM, 36)),
    "github-fine": _simple("github_", "pat_", (ALNUM, 22), "_", (ALNUM, 59)),
    "gitlab": _simple("glp", "at-", (URLSAFE, 20)),
    "bitbucket": _simple("AT", "BB", (ALNUM, 32)),
    "atlassian": _simple("ATA", "TT3", (URLSAFE, 180)),
    "slack": _simple("xo", "xb-", (DIGITS, 12), "-", (DIGITS, 12), "-", (ALNUM, 24)),
    "slack-app": _simple("xa", "pp-1-", (UPPER, 10), "-", (DIGITS, 13), "-", (HEX, 64)),
    "slack-webhook": _simple("https://hooks.slack.com/services/|T", (UPPER, 9), "/B", (UPPER, 9),
                             "/", (ALNUM, 24)),
    "discord-webhook": _simple("https://discord.com/api/webhooks/|", (DIGITS, 18), "/",
                               (URLSAFE, 68)),
    "discord-bot": _simple("discord bot: |M", (ALNUM, 23), ".", (ALNUM, 6), ".", (ALNUM, 38)),
    "telegram": _simple("1", (DIGITS, 9), ":A", "A", (ALNUM, 33)),
    "google-api": _simple("AI", "za", (ALNUM, 35)),
    "google-oauth": _simple("ya", "29.", (ALNUM, 60)),
    "google-client": _simple("GOC", "SPX-", (ALNUM, 28)),
    "azure-storage": _simple("Account", "Key=|", (ALNUM + "+/", 86), "=="),
    "azure-sas": _simple("https://a.blob.core.windows.net/c?sv=2024&sig=|", (ALNUM, 44)),
    "azure-client": _simple((ALNUM, 3), "8", "Q~", (ALNUM, 34)),
    "stripe": _simple("sk_", "live_", (ALNUM, 24)),
    "stripe-webhook": _simple("whs", "ec_", (ALNUM, 32)),
    "square": _simple("sq0", "atp-", (ALNUM, 22)),
    "paypal": _simple("access_", "token$production$", (LOWER + DIGITS, 16), "$", (HEX, 32)),
    "shopify": _simple("shp", "at_", (HEX, 32)),
    "sendgrid": _simple("S", "G.", (ALNUM, 22), ".", (ALNUM, 43)),
    "mailgun": _simple("ke", "y-", (HEX, 32)),
    "mailchimp": _simple((HEX, 32), "-u", "s12"),
    "twilio": _simple("S", "K", (HEX, 32)),
    "npm": _simple("np", "m_", (ALNUM, 36)),
    "pypi": _simple("py", "pi-AgEIcHlwaS5vcmc", (URLSAFE, 120)),
    "rubygems": _simple("ruby", "gems_", (HEX, 48)),
    "crates": _simple("ci", "o", (ALNUM, 32)),
    "nuget": _simple("oy", "2", (LOWER + DIGITS, 43)),
    "docker-hub": _simple("dckr_", "pat_", (ALNUM, 27)),
    "digitalocean": _simple("dop_", "v1_", (HEX, 64)),
    "heroku": _simple("HR", "KU-", (ALNUM, 60)),
    "fly": _simple("Fly", "V1 |fm2_", (ALNUM, 90)),
    "vercel": _simple("vc", "p_", (ALNUM, 56)),
    "cloudflare": _simple("v1", ".0-", (HEX, 24), "-", (HEX, 146)),
    "supabase": _simple("sb", "p_", (HEX, 40)),
    "planetscale": _simple("psc", "ale_tkn_", (ALNUM, 43)),
    "databricks": _simple("da", "pi", (HEX, 32)),
    "huggingface": _simple("h", "f_", (ALNUM, 34)),
    "replicate": _simple("r", "8_", (ALNUM, 37)),
    "groq": _simple("gs", "k_", (ALNUM, 52)),
    "xai": _simple("xa", "i-", (ALNUM, 80)),
    "perplexity": _simple("pp", "lx-", (ALNUM, 48)),
    "fireworks": _simple("f", "w_", (ALNUM, 24)),
    "langsmith": _simple("ls", "v2_pt_", (HEX, 32), "_", (HEX, 10)),
    "linear": _simple("lin_", "api_", (ALNUM, 40)),
    "notion": _simple("nt", "n_", (ALNUM, 46)),
    "figma": _simple("fi", "gd_", (URLSAFE, 40)),
    "airtable": _simple("pa", "t", (ALNUM, 14), ".", (HEX, 64)),
    "postman": _simple("PM", "AK-", (HEX, 24), "-", (HEX, 34)),
    "doppler": _simple("d", "p.pt.", (ALNUM, 43)),
    "vault": _simple("hv", "s.", (ALNUM, 90)),
    "terraform": _simple((ALNUM, 14), ".atl", "asv1.", (ALNUM, 64)),
    "pulumi": _simple("pu", "l-", (HEX, 40)),
    "grafana": _simple("gl", "sa_", (ALNUM, 32), "_", (HEX, 8)),
    "newrelic": _simple("NR", "AK-", (UPPER + DIGITS, 27)),
    "sentry": _simple("sn", "trys_", (ALNUM, 60)),
    "dynatrace": _simple("dt0", "c01.", (UPPER + DIGITS, 24), ".", (UPPER + DIGITS, 64)),
    "tailscale": _simple("ts", "key-auth-", (ALNUM, 12), "-", (ALNUM, 30)),
    "authorization": _simple("Authorization: ", "Bearer |", (ALNUM, 40)),
    "url-password": _simple("postgres://bob:|", (ALNUM, 14), "|@db.example.org/x"),
    "password": _simple("pass", "word=|", (ALNUM, 12)),
    "assignment": _simple("MY_API_", 'KEY="|', (ALNUM, 40), '|"'),
}  # fmt: skip


def plant(kind: str, number: int = 0) -> tuple[str, str]:
    """A text that holds a secret of this kind, and the secret itself. The same number gives the
    same."""
    text = KINDS[kind](random.Random(f"{kind} {number}"))
    parts = text.split("|")
    return "".join(parts), parts[min(1, len(parts) - 1)]


def plants(count: int) -> list[tuple[str, str, str]]:
    """So many: kind, text, secret, of all kinds in turn."""
    names = list(KINDS)
    kinds = [names[n % len(names)] for n in range(count)]
    return [(kind, *plant(kind, n)) for n, kind in enumerate(kinds)]


def single_words(count: int) -> list[str]:
    """The first so many secrets that are one word and need nothing around them."""
    alone = [
        secret
        for _, text, secret in plants(4 * count)
        if text == secret and len(secret.split()) == 1 and '"' not in secret
    ]
    return alone[:count]
