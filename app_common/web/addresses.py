"""Where the other services' pages are, for whoever sends the request that is being answered."""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import request

from app_common.settings import page_ports


def page_address(service: str) -> str:
    """Where the service's own pages are."""
    return same_host(page_ports()[service])


def same_host(port: int) -> str:
    """Another port of the host that was asked: it may be ``localhost``, or another name of this machine."""
    host = urlsplit(request.host_url).hostname or "127.0.0.1"
    return f"{request.scheme}://{bracketed(host)}:{port}/"


def bracketed(host: str) -> str:
    """As an address has it: that of IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host
