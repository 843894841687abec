"""Servers whose commands have no word for what a benchmark has to set: called from Python instead. A program of its own.

python -m benchmarks.serve_by_call SERVER --port N --threads N [--app NAME] [--grace S] [--connections N]
"""

from __future__ import annotations

import argparse

from benchmarks import serve_app


def main() -> None:
    """Serve until a signal."""
    parser = argparse.ArgumentParser()
    parser.add_argument("server", choices=("manyhands", "cheroot"))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, default=10)
    parser.add_argument("--app", default="app")
    parser.add_argument("--grace", type=float, default=10.0)
    parser.add_argument("--connections", type=int, default=10)
    options = parser.parse_args()
    app = getattr(serve_app, options.app)
    if options.server == "manyhands":
        from manyhands.server import serve

        serve(app, port=options.port, threads=options.threads, grace=options.grace)
        return
    from cheroot import wsgi

    # Five may wait to be accepted if it is not said, and ten be kept.
    address = ("127.0.0.1", options.port)
    server = wsgi.Server(address, app, numthreads=options.threads, request_queue_size=min(options.connections, 1024))
    server.keep_alive_conn_limit = options.connections
    server.safe_start()


if __name__ == "__main__":
    main()
