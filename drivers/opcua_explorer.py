"""Looking for an OPC UA server: its endpoints and the certificate that it shows, as it tells them to strangers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from asyncua import ua
from asyncua.client.client import Client
from cryptography import x509

from drivers.opcua_trust import show
from edge.core.errors import LinesideError
from edge.explorer import Explorer, Say, Seen, Where, shown

logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)

PORT: Final = 4840
ENDPOINTS_MAX: Final = 50
_PATH_CHARS_MAX: Final = 200


async def probe(where: Where, say: Say) -> list[Seen]:
    """The OPC UA server there, if one answers."""
    if not where.host:
        return []
    port = where.port or PORT
    say(f"OPC UA at {where.host}:{port}")
    host = f"[{where.host}]" if ":" in where.host else where.host
    client = Client(f"opc.tcp://{host}:{port}/", timeout=where.timeout_s)
    client.name = client.description = "Lineside"
    client.application_uri = "urn:lineside:edge"
    greeted = False
    try:
        async with asyncio.timeout(4 * where.timeout_s):
            await client.connect_socket()
            await client.send_hello()
            greeted = True
            await client.open_secure_channel()
            endpoints = await client.get_endpoints()
            return [told_by(f"opc.tcp://{host}:{port}", endpoints[:ENDPOINTS_MAX])]
    except Exception:  # noqa: BLE001  what a stranger answers may break asyncua's reader in any way
        return [_closed(f"opc.tcp://{host}:{port}/")] if greeted else []
    finally:
        _leave(client)


def _leave(client: Client) -> None:
    client.uaclient.request_disconnect()
    protocol = client.uaclient.protocol
    if protocol is not None and protocol.transport is not None:
        protocol.transport.abort()
    client.disconnect_socket()


def _closed(endpoint: str) -> Seen:
    return Seen(
        "An OPC UA server that says nothing of itself to strangers.",
        {"endpoint": endpoint},
        (("to do", "take its certificate from the server as a file, and: lineside equipment trust FILE"),),
    )


def told_by(base: str, endpoints: Sequence[ua.EndpointDescription]) -> Seen:
    """The server as its endpoints describe it."""
    ways = list(dict.fromkeys(_way(one) for one in endpoints))
    secured = any(one.SecurityMode is ua.MessageSecurityMode.SignAndEncrypt for one in endpoints)
    first = next(iter(endpoints), None)
    der = next((bytes(one.ServerCertificate) for one in endpoints if one.ServerCertificate), b"")
    facts = [("offers", way) for way in ways]
    if first is not None:
        facts += [("application", shown(first.Server.ApplicationUri)), ("name", _name(first))]
        users = {kind.TokenType.name for one in endpoints for kind in one.UserIdentityTokens or ()}
        facts.append(("users", ", ".join(sorted(users)) or "-"))
    settings = {"endpoint": base + _path(str(first.EndpointUrl) if first is not None else "")}
    if not secured:
        settings["security"] = "none"
        facts.append(("note", "offers no encryption: use it only on a network that is protected otherwise"))
    if der and secured:
        facts += _certificate_facts(der)
    return Seen("An OPC UA server.", settings, tuple(facts), der if secured else b"")


def _way(endpoint: ua.EndpointDescription) -> str:
    return f"{shown(str(endpoint.SecurityPolicyUri).rpartition('#')[2])[:40]} {endpoint.SecurityMode.name}"


def _name(endpoint: ua.EndpointDescription) -> str:
    text = getattr(endpoint.Server.ApplicationName, "Text", "")
    return shown(text or "-")


def _path(url: str) -> str:
    """The path of the server's own endpoint; its host may be one that nobody here knows."""
    try:
        path = urlsplit(url).path
    except ValueError:
        path = ""
    plain = path.isascii() and path.isprintable() and not set(path) & set("\"'\\ $`")
    return path if path.startswith("/") and plain and len(path) <= _PATH_CHARS_MAX else "/"


def _certificate_facts(der: bytes) -> Iterator[tuple[str, str]]:
    try:
        told = show(x509.load_der_x509_certificate(der), Path())
    except (ValueError, TypeError, LinesideError):
        yield "certificate", "cannot be read"
        return
    yield "certificate", shown(f"{told.subject}, issued by {told.issuer}")
    yield "certificate of", shown(f"{told.uri or '-'} on {', '.join(told.hosts) or '-'}")
    yield "valid", f"{told.valid_from} to {told.valid_to}"
    yield "SHA-256", told.fingerprint
    yield "SHA-1", told.thumbprint


EXPLORER: Final = Explorer(probe)
