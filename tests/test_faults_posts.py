"""Posts that race a drain or a close: each ran, was counted, or was refused."""

from __future__ import annotations

import logging
import random
import threading

import pytest

import manyhands as mh
from support import LONG, wait_until


def posts_race_drains(make_loop, spawn, rounds: int, head_start: float) -> int:
    """Four posters post until they are refused while a drain stops the loop; what was accepted must have run."""
    loop = make_loop(handover=0)
    accepted_in_all = 0
    for number in range(rounds):
        ran: list[int] = []
        strands = [loop.strand() for _ in range(4)]
        crew = [spawn(loop.join) for _ in range(number % 3)]
        begun = threading.Barrier(5)

        def post_until_refused(
            poster: int, strands: list = strands, ran: list[int] = ran, begun: threading.Barrier = begun
        ) -> int:
            begun.wait(LONG)
            for count in range(1_000_000):
                try:
                    (strands[poster] if count % 2 else loop).post(ran.append, poster)
                except mh.LoopStopped:
                    return count
            raise AssertionError("never refused")

        posters = [spawn(post_until_refused, poster) for poster in range(4)]
        begun.wait(LONG)
        threading.Event().wait(random.Random(number).random() * head_start)
        assert loop.stop(timeout=60, drain=True) is True
        accepted = [poster.result(timeout=60) for poster in posters]
        for thread in crew:
            thread.result()
        assert [ran.count(poster) for poster in range(4)] == accepted
        accepted_in_all += sum(accepted)
        loop.restart()
    return accepted_in_all


@pytest.mark.race
def test_posts_race_a_drain_and_the_account_is_exact(make_loop, spawn):
    """FAULT 23. A post made at the same time as a stop ran before the end, or its caller was told: no third thing."""
    posts_race_drains(make_loop, spawn, rounds=24, head_start=0.001)


@pytest.mark.race
@pytest.mark.stress
def test_a_million_posts_race_drains_and_the_account_is_exact(make_loop, spawn):
    """FAULT 23. The same until a million posts were accepted."""
    accepted = 0
    while accepted < 1_000_000:
        accepted += posts_race_drains(make_loop, spawn, rounds=10, head_start=0.05)


@pytest.mark.race
def test_posts_race_close_and_each_ran_or_was_counted_or_refused(make_loop, spawn, caplog):
    """FAULT 23. A post made at the same time as a close ran, or raised, or is in the count that the close logs."""
    for number in range(30):
        loop = make_loop(name=f"round {number}", handover=0)
        strand = loop.strand()
        ran: list[int] = []
        begun = threading.Barrier(3)

        def post_until_refused(
            strand: mh.Strand = strand, ran: list[int] = ran, begun: threading.Barrier = begun
        ) -> int:
            begun.wait(LONG)
            for count in range(1_000_000):
                try:
                    strand.post(ran.append, count)
                except (mh.LoopClosed, mh.LoopStopped, mh.StrandClosed):
                    return count
            raise AssertionError("never refused")

        crew = [spawn(loop.join) for _ in range(number % 3)]
        wait_until(lambda loop=loop, joined=number % 3: loop.joined == joined)
        posters = [spawn(post_until_refused) for _ in range(2)]
        begun.wait(LONG)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "manyhands.loop"):
            loop.close()
        accepted = sum(poster.result() for poster in posters)
        for thread in crew:
            thread.result()
        never_ran = accepted - len(ran)
        said = [record.getMessage() for record in caplog.records]
        if never_ran:
            assert len(said) == 1
            assert str(never_ran) in said[0].replace(f"round {number}", "")
        else:
            assert said == []
