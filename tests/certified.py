"""Certificates and TLS contexts for tests, made by the `openssl` program once in a run."""

from __future__ import annotations

import atexit
import functools
import shutil
import ssl
import subprocess
import tempfile
from pathlib import Path

NAMES = "subjectAltName=DNS:localhost,IP:127.0.0.1"


@functools.cache
def directory() -> Path:
    """Where the files are: `cert.pem` and `key.pem` of localhost, which vouches for itself, and `both.pem`."""
    made = Path(tempfile.mkdtemp(prefix="mh-tls-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(made / "key.pem")]
    subject = ["-subj", "/CN=localhost", "-addext", NAMES, "-days", "2", "-out", str(made / "cert.pem")]
    subprocess.run(["openssl", "req", "-x509", *key, *subject], check=True, capture_output=True, timeout=60)
    (made / "both.pem").write_bytes((made / "key.pem").read_bytes() + (made / "cert.pem").read_bytes())
    return made


def certificate() -> str:
    """The certificate's file; as an authority too."""
    return str(directory() / "cert.pem")


def key() -> str:
    """The key's file."""
    return str(directory() / "key.pem")


def server_context() -> ssl.SSLContext:
    """A server's, as localhost."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate(), key())
    return context


def client_context(*, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """A client's, that trusts localhost."""
    context = ssl.create_default_context(cafile=certificate())
    context.maximum_version = newest
    return context
