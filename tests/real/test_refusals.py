# SPDX-License-Identifier: Apache-2.0
"""What plain vLLM refuses, the pair refuses through the proxy: the same status, the same error, in the same words; and
neither side keeps anything of it, nor is the next request any slower for it."""
import json

import pytest
from harness import CHAT, COMPLETIONS, MODEL, Answer, ask, plain_texts, request_body

pytestmark = pytest.mark.usefixtures("nothing_held")

BAD = {
    "prompt_too_long": {"long": True},
    "unknown_model": {"model": "nope"},
    "max_tokens_zero": {"max_tokens": 0},
    "max_tokens_above_the_model": {"max_tokens": 100000},
    "min_above_max_tokens": {"min_tokens": 20, "max_tokens": 10},
    "negative_temperature": {"temperature": -1},
    "top_p_above_one": {"top_p": 1.5},
    "wrong_type": {"temperature": "warm"},
    "two_greedy_choices": {"n": 2},
    "no_choices": {"n": 0},
    "stream_options_without_stream": {"stream_options": {"include_usage": True}},
    "bad_stop_token_ids": {"stop_token_ids": ["a"]},
    "too_many_logprobs": {"logprobs": 99},
    "bad_response_format": {"response_format": {"type": "nope"}},
    "logit_bias_out_of_range": {"logit_bias": {"999999": 1}},
}
CHAT_ONLY = {
    "no_messages": {"messages": []},
    "tool_choice_without_parser": {
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}], "tool_choice": "required"
    },
}
COMPLETIONS_ONLY = {
    "empty_prompt": {"prompt": ""},
    "empty_prompt_list": {"prompt": []},
    "token_out_of_vocabulary": {"prompt": [5, 999999]},
    "second_prompt_too_long": {"prompt": ["short", "long " * 2000]},
}


# With NIXL, whose threads leave this machine little.
FEW = ("prompt_too_long", "unknown_model", "two_greedy_choices", "logit_bias_out_of_range", "second_prompt_too_long")


def cases():
    for path, more in ((CHAT, CHAT_ONLY), (COMPLETIONS, COMPLETIONS_ONLY)):
        for name, change in {**BAD, **more}.items():
            for stream in (False, True):
                if stream and "stream_options" in change:
                    continue
                yield pytest.param(path, change, stream, id=f"{path[4:]}-{name}-{'stream' if stream else 'plain'}",
                                   marks=() if name in FEW else pytest.mark.mooncake)


def error_of(answer):
    """The error as JSON; of validation errors, whose text quotes the request's own memory, too."""
    body = answer.body.decode()
    if answer.fields.get("content-type", "").startswith("text/event-stream"):
        body = body.split("\n\n")[0].removeprefix("data: ")
    return json.loads(body)


@pytest.mark.parametrize("path, change, stream", cases())
def test_same_error_as_plain(plain, pair, proxy, path, change, stream):
    change = dict(change)
    text = "long " * 2000 if change.pop("long", False) else "a prompt"
    body = {**request_body(path, text, stream=stream), **change}
    theirs, ours = ask(plain.url, path, body), ask(proxy.url, path, body)
    assert error_or_text(ours) == error_or_text(theirs)
    if theirs.status == 200 and b'data: {"error"' in theirs.body:
        # What the engine itself finds comes too late for a stream's status, and vLLM has to say it in an event. The
        # proxy knows it before it has answered, and gives the status that the error names.
        assert ours.status == error_of(theirs)["error"]["code"]
    else:
        assert ours.status == theirs.status
        assert ours.fields["content-type"] == theirs.fields["content-type"]
    good = request_body(path, "a good request after a bad one")
    assert plain_texts(ask(proxy.url, path, good)) == plain_texts(ask(plain.url, path, good))


def error_or_text(answer):
    """Some of what is refused on one release is served by another; then the texts are compared."""
    if answer.status >= 400 or answer.body.startswith(b'data: {"error"'):
        return error_of(answer)
    return answer.body.split(b'"choices"')[-1][:40]


@pytest.mark.parametrize("path", (CHAT, COMPLETIONS))
@pytest.mark.parametrize("text", ("", "{", "[]", "nul", '{"model": "' + MODEL + '"}', '"text"'))
def test_broken_bodies(plain, proxy, path, text):
    """The proxy refuses some of these itself; the kind of the answer is vLLM's."""
    theirs, ours = Answer.of(plain.url, "POST", path, text), Answer.of(proxy.url, "POST", path, text)
    assert ours.status == theirs.status == 400
    assert set(error_of(ours)["error"]) == set(error_of(theirs)["error"])
    assert error_of(ours)["error"]["code"] == 400


def test_faults_cost_the_next_request_no_seat(plain, pair, proxy):
    """P has 20 seats for waiting pulls; refused requests may take none of them."""
    bad = request_body(COMPLETIONS, "long " * 2000)
    for _ in range(30):
        assert ask(proxy.url, COMPLETIONS, bad).status == 400
    good = request_body(COMPLETIONS, "still served at once")
    assert plain_texts(ask(proxy.url, COMPLETIONS, good)) == plain_texts(ask(plain.url, COMPLETIONS, good))
