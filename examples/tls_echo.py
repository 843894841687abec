"""An echo server that speaks TLS, and clients that check its certificate, in one program.

With no argument it makes a certificate of its own with the `openssl` program, and plays a scene: two clients that talk,
one that speaks no TLS, one that looks for another name, one that says nothing. Each costs itself only.

    python examples/tls_echo.py [--threads N]

With a certificate it serves until Ctrl-C; try it with `openssl s_client -connect 127.0.0.1:7009`:

    python examples/tls_echo.py --cert FILE --key FILE [--port PORT]

What to look for:
* `TLSListener` shakes hands in tasks of their own: a peer that says nothing holds nobody up;
* `connect_tcp(..., tls=context)` gives a stream that is used as any other;
* one task reads while another writes, and `send_eof()` ends one way only.
"""

import argparse
import contextlib
import logging
import shutil
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path

import manyhands as mh


async def echo(stream: mh.TLSStream) -> None:
    async for chunk in stream:
        await stream.send(chunk)


async def serve(port: int, context: ssl.SSLContext) -> None:
    listener = mh.TLSListener(await mh.create_tcp_listener(port=port), context)
    async with listener:
        print(f"echo by TLS on 127.0.0.1 port {listener.port}", flush=True)
        await listener.serve(echo)


async def talk(name: str, port: int, context: ssl.SSLContext, lines: int) -> None:
    async with await mh.connect_tcp("127.0.0.1", port, tls=context, server_hostname="localhost") as stream:

        async def say() -> None:
            for number in range(lines):
                await stream.send(f"{name} {number}\n".encode())
            await stream.send_eof()

        async with mh.create_task_group() as group:
            group.start_soon(say)
            heard = b"".join([chunk async for chunk in stream]).splitlines()
        print(f"{name} heard {len(heard)} lines of its own by {stream.ssl_object.version()}, the last {heard[-1]!r}")


async def play(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    async with mh.TLSListener(await mh.create_tcp_listener(), server) as listener, mh.create_task_group() as group:
        group.start_soon(listener.serve, echo)
        async with await mh.connect_tcp("127.0.0.1", listener.port):  # says nothing, all the while
            async with await mh.connect_tcp("127.0.0.1", listener.port) as plain:
                await plain.send(b"GET / HTTP/1.1\r\n\r\n")
                with contextlib.suppress(mh.EndOfStream, mh.BrokenResourceError):
                    async for _ in plain:
                        pass
            try:
                await mh.connect_tcp("127.0.0.1", listener.port, tls=client, server_hostname="example.org")
            except mh.BrokenResourceError as error:
                print("carl:", error)
            async with mh.create_task_group() as clients:
                for name in ("ann", "bob"):
                    clients.start_soon(talk, name, listener.port, client, 1000)
            print("handshakes that go on:", listener.handshakes)
        group.cancel_scope.cancel()


def make_certificate(directory: Path) -> tuple[str, str]:
    certificate, key = str(directory / "cert.pem"), str(directory / "key.pem")
    key_of = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key]
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2", "-out", certificate]
    openssl = shutil.which("openssl") or "openssl"
    subprocess.run([openssl, "req", "-x509", *key_of, *name], check=True, capture_output=True)
    return certificate, key


def server_context(certificate: str, key: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cert")
    parser.add_argument("--key")
    parser.add_argument("--port", type=int, default=7009)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s", level=logging.INFO)
    if options.cert:
        with contextlib.suppress(KeyboardInterrupt):
            mh.run(serve, options.port, server_context(options.cert, options.key), threads=options.threads)
        return
    with tempfile.TemporaryDirectory() as directory:
        certificate, key = make_certificate(Path(directory))
        client = ssl.create_default_context(cafile=certificate)
        mh.run(play, server_context(certificate, key), client, threads=options.threads)


if __name__ == "__main__":
    main()
