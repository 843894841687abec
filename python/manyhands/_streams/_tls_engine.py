"""TLS without a socket: bytes go in, bytes come out, nobody waits.

The one place that touches an `ssl.SSLObject`. It must never be used by two threads at once, and a reader and a writer may
be on two: so every method takes the lock, and none of them waits for anything but the arithmetic of one chunk.
"""

from __future__ import annotations

import ssl
import threading

from manyhands.errors import BrokenResourceError, EndOfStream

__all__ = ["CHUNK", "Engine"]

CHUNK = 65536
"""Bytes that are taken from the connection, or encrypted, at once: what bounds the memory of each direction."""

RECORD = 16384
"""The most that TLS puts into one record, and so the most that one read gives."""

NOT_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "UNKNOWN_PROTOCOL"})
"""OpenSSL's names for a first record that is none."""


class Engine:
    """A TLS session between two buffers of ciphertext.

    What is read is asked for by `read`; when it gives None the peer has to be heard: `feed`. What `unsent` says is to be
    sent to the peer: `ciphertext`, and `sent` when it was. `fed` counts what came, so that a task sees whether another
    has fed the engine since it looked.
    """

    def __init__(
        self, context: ssl.SSLContext, *, server_side: bool, hostname: str | None, truncation_is_the_end: bool
    ) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.object = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=hostname
        )
        self.fed = 0
        self._truncation_is_the_end = truncation_is_the_end
        self._using = threading.Lock()
        self._held = b""  # plaintext that was read before somebody asked for it
        self._taken = b""  # ciphertext that is being sent
        self._hung_up = False
        self._notified = False
        self.dry = False
        """Whether all that came was read: `read` gives None before more comes."""
        self.owes = False
        """Whether what was read is to be answered: new keys, for instance. As it was at the last `read`."""

    @property
    def unsent(self) -> bool:
        """Whether there is ciphertext that the peer has to get."""
        with self._using:
            return bool(self._taken) or self._outgoing.pending > 0

    def ciphertext(self) -> bytes:
        """What is to be sent; the same until `sent` is called."""
        with self._using:
            self._taken = self._taken or self._outgoing.read()
            return self._taken

    def sent(self) -> None:
        """What `ciphertext` gave was sent."""
        self._taken = b""

    def feed(self, ciphertext: bytes) -> None:
        """Take what the peer has sent."""
        with self._using:
            self._incoming.write(ciphertext)
            self.dry = False
            self.fed += 1

    def hang_up(self) -> None:
        """The peer sends no more; that is right only after its close_notify."""
        with self._using:
            self._hung_up = True
            self.dry = False
            self.fed += 1

    def shake_hands(self) -> bool:
        """Go on with the handshake; False if the peer has to be heard."""
        with self._using:
            try:
                self.object.do_handshake()
            except ssl.SSLWantReadError:
                if self._hung_up:
                    raise BrokenResourceError("the peer hung up during the TLS handshake") from None
                return False
            except ssl.SSLError as error:
                raise BrokenResourceError(f"the TLS handshake failed: {_explained(error)}") from error
            return True

    def read(self, max_bytes: int) -> bytes | None:
        """Decrypt what has come, at most so many bytes; None if the peer has to be heard.

        Raises:
            EndOfStream: the peer has said that no more comes.
            BrokenResourceError: it has not, and no more comes; or what came is no TLS.
        """
        with self._using:
            if self._held:
                held, self._held = self._held[:max_bytes], self._held[max_bytes:]
                return held
            if self.dry:
                return None
            data = self._read(max_bytes)
            self.owes = self._outgoing.pending > 0
            return data

    def _read(self, max_bytes: int) -> bytes | None:
        """As `read`, under the lock. OpenSSL says by an exception that there is no more, so it is asked as rarely as can be."""
        pieces: list[bytes] = []
        wanted = max_bytes
        while True:
            try:
                piece = self._piece(min(wanted, RECORD))
            except ssl.SSLError as error:
                if not pieces:
                    raise BrokenResourceError(f"the TLS connection was lost: {_explained(error)}") from error
                break  # it says so again
            if not piece:
                if pieces:
                    break
                if piece is None and not self._hung_up:
                    self.dry = True
                    return None
                raise self._end(notified=piece is not None)
            pieces.append(piece)
            wanted -= len(piece)
            if wanted <= 0:
                break
            if not self._incoming.pending and not self.object.pending():
                self.dry = not self._hung_up
                break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _piece(self, size: int) -> bytes | None:
        """What is in one record; nothing behind the peer's end, None if it has not come yet."""
        try:
            return self.object.read(size)
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLZeroReturnError:
            return b""

    def _end(self, *, notified: bool) -> Exception:
        if notified or self._truncation_is_the_end:
            return EndOfStream()
        error = BrokenResourceError("the peer hung up without the end of the TLS session: something may be missing")
        error.__cause__ = ssl.SSLEOFError(ssl.SSLErrorNumber.SSL_ERROR_EOF, "EOF occurred in violation of protocol")
        return error

    def seal(self, plaintext: bytes | memoryview) -> tuple[int | None, bytes]:
        """As `write` and `ciphertext`, in one go."""
        count = self.write(plaintext)
        return count, self.ciphertext()

    def write(self, plaintext: bytes | memoryview) -> int | None:
        """Encrypt; how many bytes of it, or None if the peer has to be heard before."""
        with self._using:
            try:
                return self.object.write(plaintext)
            except ssl.SSLWantReadError:
                if self._hung_up:
                    raise BrokenResourceError("the peer hung up") from None
                return None
            except ssl.SSLError as error:
                raise BrokenResourceError(f"the TLS connection was lost: {_explained(error)}") from error

    def end_writing(self) -> None:
        """Say that no more is sent. Once; what the peer sends can still be read."""
        with self._using:
            if self._notified:
                return
            self._notified = True
            # OpenSSL would also look whether the peer has said so, and take data of the peer's for an error. It must not
            # see any.
            try:
                while self.object.pending() > 0:
                    self._held += self.object.read(RECORD)
                unread = self._incoming.read()
                try:
                    self.object.unwrap()
                except ssl.SSLWantReadError:
                    pass
                finally:
                    if unread:
                        self._incoming.write(unread)
            except ssl.SSLError as error:
                raise BrokenResourceError(f"the TLS connection was lost: {_explained(error)}") from error

    def unwrap(self) -> bool:
        """Wait for the peer's end as well; False if the peer has to be heard.

        Raises:
            BrokenResourceError: there is data of the peer's before its end.
        """
        with self._using:
            try:
                self.object.unwrap()
            except ssl.SSLWantReadError:
                if self._hung_up:
                    raise self._end(notified=False) from None
                return False
            except ssl.SSLError as error:
                raise BrokenResourceError(f"the TLS session did not end: {_explained(error)}") from error
            return True

    def rest(self) -> bytes:
        """What came behind the end of the session."""
        with self._using:
            return self._incoming.read()


def _explained(error: ssl.SSLError) -> str:
    reason = error.reason or ""
    words = getattr(error, "verify_message", None) or reason.replace("_", " ").lower() or str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the peer's certificate was refused: {words}"
    if reason in NOT_TLS:
        return f"the peer does not speak TLS ({words})"
    if "ALERT" in reason:
        return f"the peer says: {words}"
    return words
