# SPDX-License-Identifier: Apache-2.0
"""The KV relay between real vLLM's workers: the decode's pulls go through the proxy, texts are those of one instance,
and whatever dies or leaves, neither side holds anything a second later (vLLM's own time-out is ABORT_TIMEOUT_S)."""
import concurrent.futures
import random
import time

import pytest
from harness import CHAT, COMPLETIONS, Leaver, ask, plain_texts, request_body, streamed_texts, wait_until

pytestmark = [pytest.mark.mooncake, pytest.mark.usefixtures("nothing_held")]
AT_ONCE_S = 1.5  # polls every 0.1 s on a busy machine; vLLM alone would need 8 s and more


def relayed(proxy):
    return proxy.metric("sluice_relay_completed_total")


@pytest.mark.parametrize("at_once", [1, 4, 16])
def test_texts_are_those_of_one_instance(plain, pair, proxy, fresh, at_once):
    dice = random.Random(at_once)
    lengths = [0, 1, 2, 31, 32, 33, 900] + [dice.randrange(1, 800) for _ in range(27)]
    bodies = []
    for number, words in enumerate(lengths):
        path = CHAT if number % 2 else COMPLETIONS
        bodies.append((path, request_body(path, f"{fresh}{number} " + "so " * words, stream=number % 3 == 0)))
    expected = [plain_texts(ask(plain.url, path, {**body, "stream": False})) for path, body in bodies]
    before, tokens = relayed(proxy), pair.decode.transferred_tokens()

    def text(each):
        path, body = each
        answer = ask(proxy.url, path, body)
        return streamed_texts(answer.events()) if body["stream"] else plain_texts(answer)

    with concurrent.futures.ThreadPoolExecutor(at_once) as clients:
        got = list(clients.map(text, bodies))
    assert got == expected
    assert relayed(proxy) - before == len(bodies)
    assert pair.decode.transferred_tokens() > tokens


def test_a_prefill_that_dies_frees_its_decode_at_once(pair, proxy, fresh):
    ask(proxy.url, COMPLETIONS, request_body(COMPLETIONS, fresh + "first"))
    with pair.prefill.frozen():
        client = Leaver(proxy.url, COMPLETIONS, request_body(COMPLETIONS, fresh + "killed " * 50, stream=True))
        wait_until(lambda: bool(pair.decode.held()), 10, "the decode waits")
        time.sleep(0.5)
        pair.prefill.kill()
        client.rest()
        wait_until(lambda: pair.decode.held() == {}, AT_ONCE_S, "the decode is free")
    pair.start("--only", "prefill")
    pair.start()
    body = request_body(COMPLETIONS, fresh + "again")
    wait_until(lambda: ask(proxy.url, COMPLETIONS, body).status == 200, 60, "the prefill is used again")


def test_a_decode_that_never_pulls_and_a_client_that_left_leave_nothing_on_the_prefill(pair, proxy, fresh):
    ask(proxy.url, COMPLETIONS, request_body(COMPLETIONS, fresh + "shows the layout"))
    released = proxy.metric("sluice_relay_released_total")
    with pair.decode.frozen():
        client = Leaver(proxy.url, COMPLETIONS, request_body(COMPLETIONS, fresh + "abandoned " * 100, stream=True))
        wait_until(lambda: "vllm:kv_cache_usage_perc" in pair.prefill.held(), 10, "the prefill holds blocks")
        wait_until(lambda: pair.prefill.metric("vllm:num_requests_running") == 0, 10, "the prefill is done")
        time.sleep(0.5)
        assert pair.prefill.held(), "they are kept for the decode"
        client.leave()
        wait_until(lambda: pair.prefill.held() == {}, AT_ONCE_S, "the prefill is free")
    assert proxy.metric("sluice_relay_released_total") > released


def test_clients_that_leave_while_the_prefill_stands_still_take_no_seats(pair, proxy, fresh):
    """vLLM alone: about ten such clients stop all hand-over of this prefill until its time-out."""
    ask(proxy.url, COMPLETIONS, request_body(COMPLETIONS, fresh + "first"))
    with pair.prefill.frozen():
        for number in range(30):
            client = Leaver(proxy.url, COMPLETIONS, request_body(COMPLETIONS, f"{fresh}{number} leaves"))
            time.sleep(0.1)
            client.leave()
    began = time.monotonic()
    assert ask(proxy.url, COMPLETIONS, request_body(COMPLETIONS, fresh + "good")).status == 200
    assert time.monotonic() - began < AT_ONCE_S * 2
