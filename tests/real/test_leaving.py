# SPDX-License-Identifier: Apache-2.0
"""Clients that leave: whatever the moment, both sides are idle afterwards and the next request is served."""
import random
import time

import pytest
from harness import (ABORT_TIMEOUT_S, CHAT, COMPLETIONS, Leaver, Proxy, ask, plain_texts, request_body, wait_until)

pytestmark = pytest.mark.usefixtures("nothing_held")


def check_next(plain, proxy, fresh, path=COMPLETIONS):
    body = request_body(path, fresh + "the next one")
    assert plain_texts(ask(proxy.url, path, body)) == plain_texts(ask(plain.url, path, body))


@pytest.mark.parametrize("stream", (False, True))
def test_while_queued(plain, pair, fresh, stream):
    narrow = Proxy(pair, "--max-in-flight", "1")
    try:
        first = Leaver(narrow.url, COMPLETIONS, request_body(COMPLETIONS, fresh + "one", 300, stream=True))
        first.read_until(b"data: ")
        second = Leaver(narrow.url, COMPLETIONS, request_body(COMPLETIONS, fresh + "two", stream=stream))
        wait_until(lambda: narrow.metric("sluice_requests_queued") == 1, 30, "the second client waits")
        second.leave()
        wait_until(lambda: narrow.metric("sluice_requests_queued") == 0, 30, "the queue is empty")
        first.leave()
        check_next(plain, narrow, fresh)
    finally:
        narrow.stop()


@pytest.mark.parametrize("path", (CHAT, COMPLETIONS))
@pytest.mark.parametrize("stream", (False, True))
def test_in_the_prefill(plain, pair, proxy, fresh, path, stream):
    with pair.prefill.frozen():
        client = Leaver(proxy.url, path, request_body(path, fresh + "a long prompt " * 40, stream=stream))
        time.sleep(0.5)  # both legs are on their way, P's does not end
        client.leave()
        time.sleep(0.2)
    check_next(plain, proxy, fresh, path)


@pytest.mark.parametrize("path", (CHAT, COMPLETIONS))
@pytest.mark.parametrize("stream", (False, True))
def test_in_the_kv_wait(plain, pair, proxy, fresh, path, stream):
    with pair.decode.frozen():
        client = Leaver(proxy.url, path, request_body(path, fresh + "a long prompt " * 40, stream=stream))
        time.sleep(1.0)  # P is done, D has not begun to fetch
        client.leave()
        time.sleep(0.2)
    check_next(plain, proxy, fresh, path)


@pytest.mark.parametrize("path", (CHAT, COMPLETIONS))
def test_in_the_stream(plain, pair, proxy, fresh, path):
    client = Leaver(proxy.url, path, request_body(path, fresh + "a stream", 800, stream=True))
    client.read_until(b'"finish_reason":null')
    client.leave()
    wait_until(lambda: pair.decode.held() or True, ABORT_TIMEOUT_S, "D stops at once")
    check_next(plain, proxy, fresh, path)


def hundred_leave(front, fresh, count):
    """Clients that leave within 1.5 s, whatever state their requests are in."""
    choose = random.Random(8998)
    clients = []
    for i in range(count):
        path, stream = choose.choice((CHAT, COMPLETIONS)), choose.random() < 0.5
        body = request_body(path, f"{fresh} {i} " + "words " * choose.randrange(1, 20), 8, stream=stream)
        clients.append((Leaver(front.url, path, body), time.monotonic() + choose.uniform(0, 1.5)))
        time.sleep(choose.uniform(0, 0.1))
        for client, leaves in [each for each in clients if each[1] <= time.monotonic()]:
            client.leave()
            clients.remove((client, leaves))
    for client, leaves in sorted(clients, key=lambda each: each[1]):
        time.sleep(max(0, leaves - time.monotonic()))
        client.leave()


@pytest.mark.parametrize("front", ("plain", "proxy", pytest.param("direct", marks=pytest.mark.mooncake)))
def test_a_hundred_at_random(plain, pair, fresh, connector, front, request):
    """How long the next request takes then is printed, beside the same in front of the plain instance, which says what
    is this machine's share; and so is what is left on both sides, and for how long. The prompts are short: what this
    is about is what clients leave behind, not how fast this machine computes."""
    front = request.getfixturevalue(front)
    count = 100 if connector == "mooncake" else 20  # NIXL's threads leave this machine little
    ask(front.url, COMPLETIONS, request_body(COMPLETIONS, fresh + "warm"))
    hundred_leave(front, fresh, count)

    body = request_body(COMPLETIONS, fresh + "the next one")
    began = time.monotonic()
    answer = ask(front.url, COMPLETIONS, body)
    took = time.monotonic() - began
    print(f"after {count} clients that left, the next request took {took:.2f} s")
    again = time.monotonic()
    assert ask(front.url, COMPLETIONS, body).status == 200
    print(f"and the same once more {time.monotonic() - again:.2f} s")
    assert plain_texts(answer) == plain_texts(ask(plain.url, COMPLETIONS, body))
    sides = {"plain": plain} if front is plain else {"prefill": pair.prefill, "decode": pair.decode}
    left = {name: instance.held() for name, instance in sides.items()}
    for name, instance in sides.items():
        wait_until(lambda: instance.held() or True, 3 * ABORT_TIMEOUT_S, f"the {name} lets go of everything")
        print(f"{name} idle {time.monotonic() - began:.1f} s after the last client; held until then: "
              f"{left[name] or 'nothing'}")
