"""A crawler: follows the links of a site, a few pages at a time, and says what it found.

What to look for:
* every page is a task, started by the task that found its link; the group ends when none is left;
* a semaphore bounds the connections, a deadline bounds each page, and a page that fails costs only itself;
* each task reads its answer sequentially: head up to the blank line, then the body, with bounds for both;
* with `--threads 2` the tasks run on two threads; what they share is changed between two awaits, under one lock.

    python examples/crawler.py                       # a site that it serves itself: 40 pages, one of them slow
    python examples/crawler.py http://127.0.0.1:8000/ --threads 2
"""

import argparse
import contextlib
import re
import threading
from urllib.parse import urljoin, urlsplit

import manyhands as mh

PAGES = 40
PAGE_SECONDS = 1.0
HEAD_BYTES = 16 * 1024
BODY_BYTES = 1024 * 1024
LINK = re.compile(rb'href="([^"#]+)"')


class Crawler:
    """Visits every page of one site, once."""

    def __init__(self, start: str, connections: int) -> None:
        self._site = urlsplit(start).netloc
        self._connections = mh.Semaphore(connections)
        self._seen_lock = threading.Lock()
        self._seen: set[str] = set()
        self.found: dict[str, str] = {}

    async def visit(self, group: mh.TaskGroup, url: str) -> None:
        """Fetch a page, and start a task for each of its links that is new."""
        try:
            async with self._connections:
                with mh.fail_after(PAGE_SECONDS):
                    status, body = await fetch(url)
        except (OSError, TimeoutError, mh.EndOfStream, mh.BrokenResourceError, mh.DelimiterNotFound) as error:
            self.found[url] = f"{type(error).__name__}: {error}"
            return
        self.found[url] = f"{status}, {len(body)} bytes"
        for link in LINK.findall(body):
            self.follow(group, urljoin(url, link.decode()))

    def follow(self, group: mh.TaskGroup, url: str) -> None:
        """Visit a page of this site, unless somebody does already."""
        with self._seen_lock:
            new = urlsplit(url).netloc == self._site and url not in self._seen
            self._seen.add(url)
        if new:
            group.start_soon(self.visit, group, url, name=url)


async def fetch(url: str) -> tuple[int, bytes]:
    """GET a page by HTTP/1.0, where the end of the stream ends the body. Returns its status and its body."""
    parts = urlsplit(url)
    stream = await mh.connect_tcp(parts.hostname or "", parts.port or 80)
    async with stream:
        await stream.send(f"GET {parts.path or '/'} HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n".encode())
        head = await stream.receive_until(b"\r\n\r\n", HEAD_BYTES)
        body = bytearray()
        async for chunk in stream:
            body += chunk
            if len(body) > BODY_BYTES:
                raise mh.BrokenResourceError(f"the page has more than {BODY_BYTES} bytes")
        return int(head.split(maxsplit=2)[1]), bytes(body)


async def serve_page(stream: mh.SocketStream) -> None:
    """Answer one request of the made-up site: page n links to 2n and 2n+1, and page 13 takes for ever."""
    request = await stream.receive_until(b"\r\n\r\n", HEAD_BYTES)
    number = int(request.split()[1].strip(b"/") or b"1")
    if number == 13:
        await mh.sleep_forever()
    links = "".join(f'<a href="/{n}">{n}</a>' for n in (2 * number, 2 * number + 1) if n <= PAGES)
    page = f"<h1>page {number}</h1>{links}".encode()
    await stream.send(b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n" + page)


async def main(start: str | None, connections: int) -> None:
    """Crawl, and print what was found."""
    async with contextlib.AsyncExitStack() as stack:
        if start is None:
            listener = await stack.enter_async_context(await mh.create_tcp_listener())
            site = await stack.enter_async_context(mh.create_task_group())
            site.start_soon(listener.serve, serve_page)
            stack.callback(site.cancel_scope.cancel)
            start = f"http://127.0.0.1:{listener.port}/"
        crawler = Crawler(start, connections)
        began = mh.current_time()
        async with mh.create_task_group() as group:
            crawler.follow(group, start)
        for url, what in sorted(crawler.found.items(), key=lambda item: (len(item[0]), item[0])):
            print(f"{urlsplit(url).path:>6}  {what}")
        print(f"{len(crawler.found)} pages in {mh.current_time() - began:.2f} s, {connections} at a time")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Follow the links of a site.")
    parser.add_argument("url", nargs="?", help="where to begin; a site of its own if not given")
    parser.add_argument("--connections", type=int, default=5, help="at once (5)")
    parser.add_argument("--threads", type=int, default=1, help="threads that run tasks (1)")
    options = parser.parse_args()
    mh.run(main, options.url, options.connections, threads=options.threads)
