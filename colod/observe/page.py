"""The status page: one file, which loads nothing from elsewhere and runs nothing but its own."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Final

_INLINE: Final = re.compile(rb"<(script|style)>(.*?)</\1>", re.DOTALL)


@cache
def page() -> bytes:
    """Return the page."""
    return resources.files("colod.observe").joinpath("page.html").read_bytes()


@cache
def headers() -> tuple[tuple[str, str], ...]:
    """Return the page's headers: what is not in it, by its digest, no browser runs or loads.

    Spec: Content Security Policy Level 3, section 6.
    """
    found = dict(_digests())
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {found['script']}",
            f"style-src {found['style']}",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
    return (
        ("Content-Type", "text/html; charset=utf-8"),
        ("Content-Security-Policy", policy),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Cache-Control", "no-cache"),
    )


def _digests() -> Iterator[tuple[str, str]]:
    for tag, content in _INLINE.findall(page()):
        digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
        yield tag.decode(), f"'sha256-{digest}'"
