"""Which `ssl.SSLContext` a session has."""

from __future__ import annotations

import ssl

__all__ = ["context_for"]

_client_contexts: list[ssl.SSLContext] = []


def _client_context() -> ssl.SSLContext:
    """The context of `tls=True`: the system's authorities, names checked. Made once: reading them takes milliseconds."""
    if not _client_contexts:
        _client_contexts.append(ssl.create_default_context())
    return _client_contexts[0]


def context_for(context: ssl.SSLContext | None, hostname: str | None, *, server_side: bool) -> ssl.SSLContext:
    """The context to use; refuses what could not work or would not be safe."""
    if server_side and hostname is not None:
        raise ValueError(f"hostname is what a client expects, and this is the server's side: got {hostname!r}")
    if context is None:
        if server_side:
            raise ValueError(
                "a server needs an ssl_context with its certificate: make one by "
                "ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) and load_cert_chain(); a client gives its hostname"
            )
        context = _client_context()
    if not server_side and hostname is None and context.check_hostname:
        raise ValueError("hostname must be given: the context checks the peer's name (check_hostname)")
    return context
