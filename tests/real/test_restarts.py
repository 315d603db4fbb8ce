# SPDX-License-Identifier: Apache-2.0
"""Instances that die. A client gets the right answer or a right error in bounded time; when the instance is back on its
old port the next answers are right, with nothing restarted but the instance."""
import json
import time

import pytest
from harness import COMPLETIONS, Leaver, ask, plain_texts, request_body, wait_until

pytestmark = [pytest.mark.mooncake, pytest.mark.usefixtures("nothing_held")]
ERROR_LIMIT_S = 20


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


def test_prefill_killed_and_restarted(plain, pair, proxy, fresh):
    check_back(plain, proxy, fresh)
    before = pair.engine_id()
    with pair.prefill.frozen():
        client = Leaver(proxy.url, COMPLETIONS, request_body(COMPLETIONS, fresh + "killed meanwhile", stream=True))
        time.sleep(0.5)
        pair.prefill.kill()
        head, _, rest = client.rest().partition(b"\r\n\r\n")
    assert head.split()[1] in (b"502", b"503", b"504"), (head, rest)
    assert set(json.loads(rest)["error"]) == {"message", "type", "param", "code"}
    check_error(proxy, request_body(COMPLETIONS, fresh + "while it is dead"))

    pair.start("--only", "prefill")
    pair.start()
    assert pair.engine_id() != before
    check_back(plain, proxy, fresh)


def test_decode_killed_in_mid_stream_and_restarted(plain, pair, proxy, fresh):
    client = Leaver(proxy.url, COMPLETIONS, request_body(COMPLETIONS, fresh + "cut", 800, stream=True))
    client.read_until(b'"finish_reason":null')
    pair.decode.kill()
    received = client.rest()
    assert b"[DONE]" not in received, "a broken stream looks whole"
    assert not received.endswith(b"0\r\n\r\n"), "a broken stream looks whole"
    assert b'"error"' in received
    check_error(proxy, request_body(COMPLETIONS, fresh + "while it is dead"))

    pair.start("--only", "decode")
    pair.start()
    check_back(plain, proxy, fresh)
