"""How a server is to serve: what `serve()` was told, in a form that another process can be told too."""

from __future__ import annotations

import json
import os
import ssl
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, Literal

from manyhands._arguments import check_choice, check_int
from manyhands.server._limits import Limits
from manyhands.server._server import Server, check_grace

if TYPE_CHECKING:
    from typing import Self

    from manyhands.server._bind import Bind
    from manyhands.server._wsgi import Application

__all__ = ["Certificate", "Settings", "load_certificate"]

Certificate = tuple[str | os.PathLike[str], str | os.PathLike[str] | None]
"""The files of a certificate with its chain, and of its key; None: the key is in the first one."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything but the application, and where to listen. See `serve`."""

    tls: ssl.SSLContext | Certificate | None = None
    trusted_proxies: tuple[str, ...] = ()
    threads: int | None = None
    limits: Limits | None = None
    max_queue_depth: int = 1024
    half_close: Literal["gone", "finish"] = "gone"
    access_log: bool = True
    grace: float = 10.0

    def __post_init__(self) -> None:
        check_grace(self.grace)
        check_choice("half_close", self.half_close, ("gone", "finish"))
        if self.threads is not None:
            check_int("threads", self.threads, at_least=1)
        check_int("max_queue_depth", self.max_queue_depth, at_least=0)
        if self.limits is not None and not isinstance(self.limits, Limits):
            raise TypeError(f"limits must be a Limits, and got {self.limits!r}")
        _check_tls(self.tls)
        if isinstance(self.tls, tuple):
            chain, key = self.tls
            object.__setattr__(self, "tls", (os.fspath(chain), None if key is None else os.fspath(key)))

    def to_json(self) -> str:
        """Write it down for another process.

        Raises:
            TypeError: a TLS context cannot be handed on.
        """
        if isinstance(self.tls, ssl.SSLContext):
            raise TypeError(
                "the workers of serve() are processes of their own, and an ssl.SSLContext cannot be handed to them: give "
                "the files, as in tls=('chain.pem', 'key.pem')"
            )
        limits = None if self.limits is None else asdict(self.limits)
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return json.dumps({**values, "limits": limits})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` has written."""
        values = json.loads(text)
        for name, kind in (("tls", tuple), ("trusted_proxies", tuple), ("limits", lambda limits: Limits(**limits))):
            if values[name] is not None:
                values[name] = kind(values[name])
        return cls(**values)

    def server(self, app: Application, bind: Bind) -> Server:
        """Make the server.

        Raises:
            OSError, TypeError, ValueError: as `Server` does, or `load_certificate`.
        """
        return Server(
            app,
            bind=bind,
            tls=load_certificate(*self.tls) if isinstance(self.tls, tuple) else self.tls,
            trusted_proxies=self.trusted_proxies,
            threads=self.threads,
            limits=self.limits,
            max_queue_depth=self.max_queue_depth,
            half_close=self.half_close,
            access_log=self.access_log,
        )


def _check_tls(tls: object) -> None:
    match tls:
        case (str() | os.PathLike(), None | str() | os.PathLike()):
            return
    if tls is not None and not isinstance(tls, ssl.SSLContext):
        raise TypeError(
            f"tls must be an ssl.SSLContext, or the files ('chain.pem', 'key.pem') of a certificate, and got {tls!r}"
        )


def load_certificate(chain: str | os.PathLike[str], key: str | os.PathLike[str] | None = None) -> ssl.SSLContext:
    """Make a server's context of a certificate and its key.

    Args:
        chain: A PEM file with the certificate, and those of its authorities behind it.
        key: A PEM file with its private key; None if it is in the first one.

    Raises:
        ValueError: they cannot be read, are none, do not belong together, or the key has a password. The text is a sentence.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(chain, key, password=_no_password)
    except OSError as error:
        files = chain if key is None else f"{chain} with {key}"
        why: object = error.strerror or error
        if isinstance(error, ssl.SSLError):
            why = WHY.get(error.reason, error.reason)
        raise ValueError(f"cannot use the certificate {files}: {why}; give a PEM file, and that of its key") from error
    return context


WHY: Final = {
    "": "there is no certificate in it, or no key",
    "KEY_VALUES_MISMATCH": "the key is that of another certificate",
    "NO_START_LINE": "it is no PEM file",
}
"""OpenSSL's reason -> what it means here."""


def _no_password() -> str:
    raise ValueError("the private key has a password: give one without, that only this user may read")
