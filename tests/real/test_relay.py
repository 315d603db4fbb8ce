# SPDX-License-Identifier: Apache-2.0
"""The KV relay between real vLLM's workers: the decode's pulls go through the proxy, texts are those of one instance,
and whatever refuses, stops, dies or leaves, neither side holds anything a second later (vLLM's own time-out is
ABORT_TIMEOUT_S, and a minute more for a prefill that died). Restarts are in test_restarts.py."""
import concurrent.futures
import contextlib
import random
import re
import time

import pytest
from conftest import RUN
from harness import (ABORT_TIMEOUT_S, CHAT, COMPLETIONS, MODEL_LENGTH, Leaver, Proxy, Set, ask, plain_texts,
                     request_body, streamed_texts, wait_until)

pytestmark = [pytest.mark.mooncake, pytest.mark.usefixtures("nothing_held")]
AT_ONCE_S = 1.5  # a second, polled every 0.1 s on a busy machine; vLLM alone would need 8 s and more
TOKENS = 8       # of each answer
ABORT_MARGIN_S = ABORT_TIMEOUT_S + 2
SEATS = 20       # of a prefill worker for waiting pulls, 2 x num_workers
EARLY = 8        # --kv-relay-early: of them, for pulls whose prefill is not known to be done


@contextlib.contextmanager
def counted(proxy, **expected):
    """What the relay's counters grow by."""
    names = {name: f"sluice_relay_{name}_total" for name in expected}
    before = {name: proxy.metric(full) for name, full in names.items()}
    yield
    assert {name: proxy.metric(full) - before[name] for name, full in names.items()} == expected


def show_the_layout(proxy, fresh):
    """An empty pull is made like a decode's, so the relay has to have seen one."""
    assert ask(proxy.url, COMPLETIONS, request_body(COMPLETIONS, fresh + "first")).status == 200


@pytest.mark.parametrize("at_once", (1, 4, 16))
def test_texts_are_those_of_one_instance(plain, pair, proxy, at_once):
    """Every length around the edges of a block and up to the model's limit; 102 texts in all."""
    dice = random.Random(at_once)
    longest = MODEL_LENGTH - TOKENS
    lengths = [1, 2, 31, 32, 33, 63, 64, 65, longest - 1, longest]
    lengths += [dice.randrange(1, longest) for _ in range(34 - len(lengths))]
    dice.shuffle(lengths)
    bodies = []
    for number, length in enumerate(lengths):
        path, stream = (CHAT if number % 2 else COMPLETIONS), number % 3 == 0
        if path == CHAT and length > 60:  # its template takes some of them
            body = request_body(CHAT, " ".join(dice.choice("some of the words that it knows".split())
                                               for _ in range(length // 4)), TOKENS, stream=stream)
        else:
            path = COMPLETIONS
            body = {**request_body(path, "", TOKENS, stream=stream),
                    "prompt": [dice.randrange(3, 1000) for _ in range(length)]}
        bodies.append((path, body))
    expected = [plain_texts(ask(plain.url, path, {**body, "stream": False})) for path, body in bodies]
    tokens = pair.decode.transferred_tokens()

    def text(each):
        path, body = each
        answer = ask(proxy.url, path, body)
        return streamed_texts(answer.events()) if body["stream"] else plain_texts(answer)

    with counted(proxy, completed=len(bodies), refused=0, stale=0, way_blocked=0):
        with concurrent.futures.ThreadPoolExecutor(at_once) as clients:
            got = list(clients.map(text, bodies))
        assert got == expected
    assert pair.decode.transferred_tokens() > tokens


@pytest.mark.parametrize("early", ("0", str(EARLY)))
def test_a_prefill_that_stops(plain, pair, fresh, early):
    """Its server accepts and its engine stands still: --prefill-timeout says when that is a failure. The decode is free
    at once, unless its pull has been handed on: then the prefill may still write, and it is free once that goes on."""
    impatient = Proxy(pair, "--kv-relay", "control", "--kv-relay-early", early, "--prefill-timeout", "2",
                      "--retries", "0")
    body = request_body(COMPLETIONS, fresh + "stopped " * 50, stream=True)
    try:
        show_the_layout(impatient, fresh)
        with pair.prefill.frozen():
            assert ask(impatient.url, COMPLETIONS, body).status == 504
            if early == "0":
                wait_until(lambda: pair.decode.held() or True, AT_ONCE_S, "the decode is free")
        for name, instance in (("decode", pair.decode), ("prefill", pair.prefill)):
            wait_until(lambda: instance.held() or True, 2 * AT_ONCE_S, f"the {name} is free")
        body["stream"] = False
        expected = plain_texts(ask(plain.url, COMPLETIONS, body))
        wait_until(lambda: ask(impatient.url, COMPLETIONS, body).status == 200, 60, "the prefill is used again")
        assert plain_texts(ask(impatient.url, COMPLETIONS, body)) == expected
    finally:
        impatient.stop()


def test_a_decode_that_never_pulls_and_a_client_that_left_leave_nothing_on_the_prefill(pair, proxy, fresh):
    show_the_layout(proxy, fresh)
    with pair.decode.frozen(), counted(proxy, released=1, unreleased=0):
        client = Leaver(proxy.url, COMPLETIONS, request_body(COMPLETIONS, fresh + "abandoned " * 100, stream=True))
        wait_until(lambda: "vllm:kv_cache_usage_perc" in pair.prefill.held(), 10, "the prefill holds blocks")
        wait_until(lambda: pair.prefill.metric("vllm:num_requests_running") == 0, 10, "the prefill is done")
        time.sleep(0.5)
        assert pair.prefill.held(), "they are kept for the decode"
        client.leave()
        began = time.monotonic()
        wait_until(lambda: pair.prefill.held() or True, AT_ONCE_S, "the prefill is free")
        print(f"the prefill was free {time.monotonic() - began:.2f} s after the client had left")


def test_clients_that_leave_while_the_prefill_stands_still_take_no_seats(plain, pair, proxy, fresh):
    """vLLM alone: about ten such clients stop all hand-over of this prefill until its time-out."""
    show_the_layout(proxy, fresh)
    timeouts = seat_timeouts(pair)
    with pair.prefill.frozen():
        for number in range(30):
            client = Leaver(proxy.url, COMPLETIONS,
                            request_body(COMPLETIONS, f"{fresh}{number} leaves", stream=number % 2 == 0))
            time.sleep(0.1)
            client.leave()
    body = request_body(COMPLETIONS, fresh + "good")
    began = time.monotonic()
    answer = ask(proxy.url, COMPLETIONS, body)
    print(f"the next request took {time.monotonic() - began:.2f} s")
    assert plain_texts(answer) == plain_texts(ask(plain.url, COMPLETIONS, body))
    assert seat_timeouts(pair) == timeouts


def seat_timeouts(pair):
    """Pulls that took a seat of the prefill until its time-out, and blocks that nobody fetched, by its log."""
    with open(pair.variables["SLUICE_REAL_PREFILL_LOG"]) as log:
        return len(re.findall("Timeout waiting for P side ready|without being sent", log.read()))


def test_two_hundred_clients_that_leave_at_random(plain, pair, proxy, fresh):
    show_the_layout(proxy, fresh)
    dice = random.Random(200)
    timeouts, most = seat_timeouts(pair), 0

    def come_and_leave(number):
        path = dice.choice((CHAT, COMPLETIONS))
        body = request_body(path, f"{fresh}{number} " + "so " * dice.randrange(1, 100), 16, stream=dice.random() < 0.5)
        client = Leaver(proxy.url, path, body)
        time.sleep(dice.uniform(0, 2))
        client.leave()

    with concurrent.futures.ThreadPoolExecutor(12) as clients:
        leaving = [clients.submit(come_and_leave, number) for number in range(200)]
        while not all(each.done() for each in leaving):
            most = max(most, proxy.metric("sluice_relay_early"))
            time.sleep(0.05)
        for each in leaving:
            each.result()
    wait_until(lambda: pair.prefill.held() or True, 30, "the prefill is idle")
    wait_until(lambda: pair.decode.held() or True, 30, "the decode is idle")
    assert most <= EARLY, "seats of the prefill taken by pulls that wait"
    for gauge in ("open_transfers", "open_pulls", "dangling", "early"):
        wait_until(lambda: proxy.metric(f"sluice_relay_{gauge}") == 0, 5, f"no {gauge}")
    time.sleep(ABORT_MARGIN_S)
    assert seat_timeouts(pair) == timeouts, "something was left to vLLM's time-out"
    body = request_body(COMPLETIONS, fresh + "after them")
    assert plain_texts(ask(proxy.url, COMPLETIONS, body)) == plain_texts(ask(plain.url, COMPLETIONS, body))


def test_what_both_engines_refuse_takes_no_seat(pair, proxy, direct, fresh):
    """vLLM's decode then asks for blocks that never were, under an id of the request's own; the relay tells it so.
    Asked directly, the prefill keeps a seat for it until its time-out."""
    too_long = request_body(COMPLETIONS, fresh + "long " * 2000)
    show_the_layout(proxy, fresh)
    with counted(proxy, handed_on=0):
        for _ in range(SEATS + 4):
            assert ask(proxy.url, COMPLETIONS, too_long).status == 400
    timeouts = seat_timeouts(pair)
    time.sleep(ABORT_MARGIN_S)
    assert seat_timeouts(pair) == timeouts


@pytest.fixture(scope="module")
def second(pair):
    """Another decode beside the pair's, which takes longer prompts than the prefill."""
    other = Set("mooncake", RUN / "second", "--only", "decode", "--decode-args", "--max-model-len 1536")
    yield other.decode
    other.down()


def test_a_prefill_that_refuses_frees_its_decode_at_once(pair, second, fresh):
    """The decode accepts this prompt and asks for its blocks, the prefill does not."""
    front = Proxy(pair, "--kv-relay", "control", decodes=[second])
    try:
        show_the_layout(front, fresh)
        for stream in (False, True):
            body = {**request_body(COMPLETIONS, "", stream=stream), "prompt": [7] * (MODEL_LENGTH + 100)}
            answer = ask(front.url, COMPLETIONS, body)
            assert answer.status == 400 and "maximum context length" in answer.json()["error"]["message"]
            wait_until(lambda: second.held() or True, AT_ONCE_S, "the decode is free")
        assert ask(front.url, COMPLETIONS, request_body(COMPLETIONS, fresh + "good")).status == 200
    finally:
        front.stop()


def test_a_decode_that_dies_is_replaced_by_the_other(plain, pair, second, fresh):
    """It is killed while it waits, and its client is answered by the other decode. Last, for it stays dead."""
    front = Proxy(pair, "--kv-relay", "control", "--decode-policy", "round_robin", decodes=[pair.decode, second])
    bodies = [request_body(COMPLETIONS, f"{fresh}{number} in its last moments", 24) for number in range(4)]
    expected = [plain_texts(ask(plain.url, COMPLETIONS, body)) for body in bodies]
    try:
        for _ in range(2):
            show_the_layout(front, fresh)
        with concurrent.futures.ThreadPoolExecutor(len(bodies)) as clients:
            with second.frozen():
                answers = [clients.submit(ask, front.url, COMPLETIONS, body) for body in bodies]
                wait_until(lambda: sum(each.done() for each in answers) == 2, 30, "the other decode answers its two")
                second.kill()
            assert [plain_texts(each.result()) for each in answers] == expected
        wait_until(lambda: pair.prefill.held() or True, AT_ONCE_S, "the prefill is free")
    finally:
        front.stop()
