# SPDX-License-Identifier: Apache-2.0
"""Instances that die. A client gets the right answer or a right error in bounded time; when the instance is back on its
old port the next answers are right, with nothing restarted but the instance. With the KV relay and without it, at once,
since a restart takes a minute."""
import json
import time

import pytest
from harness import COMPLETIONS, Leaver, ask, plain_texts, request_body, wait_until

pytestmark = [pytest.mark.mooncake, pytest.mark.usefixtures("nothing_held")]
ERROR_LIMIT_S = 20
AT_ONCE_S = 1.5  # a second, polled every 0.1 s; without the relay vLLM's time-out and a minute


def check_error(proxy, body):
    """An error in OpenAI's form, in bounded time."""
    began = time.monotonic()
    answer = ask(proxy.url, COMPLETIONS, body)
    assert answer.status in (502, 503, 504), (answer.status, answer.body)
    assert {"message", "type", "param", "code"} == set(answer.json()["error"])
    assert time.monotonic() - began < ERROR_LIMIT_S


def check_back(plain, proxy, fresh):
    body = request_body(COMPLETIONS, fresh + "is it right again")
    expected = plain_texts(ask(plain.url, COMPLETIONS, body))
    wait_until(lambda: ask(proxy.url, COMPLETIONS, body).status == 200, 60, "the instance is used again")
    assert plain_texts(ask(proxy.url, COMPLETIONS, body)) == expected


def usage(instance):
    return instance.held().get("vllm:kv_cache_usage_perc", 0)


def test_prefill_killed_and_restarted(plain, pair, proxy, direct, fresh):
    fronts = (proxy, direct)
    for front in fronts:
        check_back(plain, front, fresh)
    before = pair.engine_id()
    with pair.prefill.frozen():
        clients, held = [], []
        for front in fronts:
            body = request_body(COMPLETIONS, fresh + "killed meanwhile " * 30, stream=True)
            clients.append(Leaver(front.url, COMPLETIONS, body, "Connection: close"))
            wait_until(lambda: usage(pair.decode) > sum(held[-1:]), 10, "the decode waits for its blocks")
            held.append(usage(pair.decode))
        time.sleep(0.5)
        killed = time.monotonic()
        pair.prefill.kill()
        for name, client in zip(("with", "without"), clients):
            head, _, rest = client.rest().partition(b"\r\n\r\n")
            print(f"the client {name} the relay had its answer {time.monotonic() - killed:.2f} s after the kill")
            assert head.split()[1] in (b"502", b"503", b"504"), (head, rest)
            assert set(json.loads(rest)["error"]) == {"message", "type", "param", "code"}
        wait_until(lambda: usage(pair.decode) < held[1] - held[0] + 1e-6 or usage(pair.decode), AT_ONCE_S,
                   "the decode has given up the blocks of the request with the relay")
        print(f"with the relay the decode is free {time.monotonic() - killed:.2f} s after the kill")
    for front in fronts:
        check_error(front, request_body(COMPLETIONS, fresh + "while it is dead"))

    pair.start("--only", "prefill")
    pair.start()
    assert pair.engine_id() != before
    for front in fronts:
        check_back(plain, front, fresh)
    wait_until(lambda: pair.decode.held() or True, 120, "the decode has given up all")
    print(f"without it at most {time.monotonic() - killed:.0f} s after")


def test_decode_killed_in_mid_stream_and_restarted(plain, pair, proxy, direct, fresh):
    body = request_body(COMPLETIONS, fresh + "cut", 900, ignore_eos=True, stream=True)
    clients = [Leaver(front.url, COMPLETIONS, body) for front in (proxy, direct)]
    for client in clients:
        client.read_until(b'"finish_reason":null')
    pair.decode.kill()
    for client in clients:
        received = client.rest()
        assert b"[DONE]" not in received, "a broken stream looks whole"
        assert not received.endswith(b"0\r\n\r\n"), "a broken stream looks whole"
        assert b'"error"' in received
    for front in (proxy, direct):
        check_error(front, request_body(COMPLETIONS, fresh + "while it is dead"))

    pair.start("--only", "decode")
    pair.start()
    for front in (proxy, direct):
        check_back(plain, front, fresh)
