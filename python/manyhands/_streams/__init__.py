"""Streams: connections and listeners that tasks read and write.

| file | noun |
|---|---|
| `_stream` | a connection of the kernel's: TCP or Unix |
| `_listener` | what takes connections, and goes on when it cannot |
| `_connect` | the way to a peer: names, addresses, attempts |
| `_tls` | TLS on any stream |
| `_tls_engine` | TLS without a stream: the one place that touches OpenSSL |
| `_tls_listener` | what takes TLS connections |
| `_buffered` | the ways to read, for streams that are not the kernel's |
| `_turn` | a role that one task at a time has |
| `_ready` | waiting for a descriptor that is not a stream |

Bytes are moved by the compiled half (`_core.StreamCore`); policy (what is retried, for how long, what is logged) is here.
"""
