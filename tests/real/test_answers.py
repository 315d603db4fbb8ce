# SPDX-License-Identifier: Apache-2.0
"""A right answer is the text of one plain instance, token for token, made from the KV that P computed."""
import openai
import pytest
from harness import CHAT, COMPLETIONS, MODEL, ask, curl, plain_texts, request_body, streamed_texts

pytestmark = pytest.mark.usefixtures("nothing_held")

# Prompts below, at and above the edges of a block of 32 tokens, and of several.
# With NIXL only two of them: its threads leave this machine little, and the lengths are no matter of its dialect.
LENGTHS = (20, 64, *(pytest.param(length, marks=pytest.mark.mooncake) for length in (2, 31, 32, 33, 150, 400)))
WORD = "the story of a machine that learned to read goes on and on "


def prompt_of(start, length):
    return (start + WORD * (length // 6 + 1))[: len(start) + 2 * length]


def check_transfer(pair, act):
    """D got prompt tokens from P while acting, and computed at most one token of a block itself."""
    before = pair.decode.transferred_tokens()
    result = act()
    assert pair.decode.transferred_tokens() > before, "D computed the prompt by itself"
    return result


@pytest.mark.parametrize("path", (CHAT, COMPLETIONS))
@pytest.mark.parametrize("length", LENGTHS)
def test_plain_answer(plain, pair, proxy, fresh, path, length):
    body = request_body(path, prompt_of(fresh, length))
    expected = ask(plain.url, path, body).json()
    answer = check_transfer(pair, lambda: curl(proxy.url, path, body))
    assert plain_texts(answer) == plain_texts(ask(plain.url, path, body))
    assert answer.json()["usage"] == expected["usage"]
    assert answer.json()["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("path", (CHAT, COMPLETIONS))
@pytest.mark.parametrize("length", LENGTHS)
def test_streamed_answer(plain, pair, proxy, fresh, path, length):
    body = request_body(path, prompt_of(fresh, length), stream=True, stream_options={"include_usage": True})
    expected = ask(plain.url, path, body).events()
    answer = check_transfer(pair, lambda: curl(proxy.url, path, body)).events()
    assert streamed_texts(answer) == streamed_texts(expected)
    assert answer[-1]["usage"] == expected[-1]["usage"]
    # Tokens that come at once share an event, on a slow machine the last one's with its finish reason, so not their
    # number but their members are compared, and a kind of event may be missing between the first and the last.
    ours, theirs = members_of(answer), members_of(expected)
    assert [kind for kind in theirs if kind in ours] == ours
    assert (ours[0], ours[-1]) == (theirs[0], theirs[-1])


def members_of(events):
    """In order of appearance, without repetition: the names of an event's members and of its choice's."""
    return list(dict.fromkeys((*event, *(name for choice in event["choices"] for name in choice)) for event in events))


@pytest.mark.mooncake
@pytest.mark.parametrize("path", (CHAT, COMPLETIONS))
@pytest.mark.parametrize("length", (33, 150))
def test_without_the_relay(plain, pair, direct, fresh, path, length):
    for stream in (False, True):
        body = request_body(path, prompt_of(f"{fresh}{stream} ", length), stream=stream)
        expected = plain_texts(ask(plain.url, path, {**body, "stream": False}))
        answer = check_transfer(pair, lambda: ask(direct.url, path, body))
        assert (streamed_texts(answer.events()) if stream else plain_texts(answer)) == expected


@pytest.mark.parametrize("path", (CHAT, COMPLETIONS))
@pytest.mark.parametrize("stream", (False, True))
def test_openai_client(plain, proxy, fresh, path, stream):
    def answer(url):
        client = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0)
        create = client.chat.completions.create if path == CHAT else client.completions.create
        body = request_body(path, fresh + WORD)
        if not stream:
            made = create(**body)
            text = made.choices[0].message.content if path == CHAT else made.choices[0].text
            return text, made.usage.model_dump()
        text, usage = "", None
        for event in create(**body, stream=True, stream_options={"include_usage": True}):
            for choice in event.choices:
                text += (choice.delta.content if path == CHAT else choice.text) or ""
            usage = event.usage or usage
        return text, usage.model_dump()

    ours, theirs = answer(proxy.url), answer(plain.url)
    assert ours == theirs
    assert ours[0] and ours[1]["completion_tokens"] == 12


def test_openai_client_lists_models(plain, proxy):
    def models(url):
        return [model.id for model in openai.OpenAI(base_url=url + "/v1", api_key="none").models.list()]

    assert models(proxy.url) == models(plain.url) == [MODEL]


@pytest.mark.parametrize("path", (CHAT, COMPLETIONS))
@pytest.mark.parametrize("stream", (False, True))
def test_two_choices(plain, proxy, fresh, path, stream):
    """Greedy they may not be; a seed makes the drawn ones comparable."""
    body = request_body(path, fresh + WORD, n=2, temperature=0.8, seed=7, stream=stream)
    ours, theirs = ask(proxy.url, path, body), ask(plain.url, path, body)
    if stream:
        texts = streamed_texts(ours.events())
        assert texts == streamed_texts(theirs.events())
    else:
        texts = plain_texts(ours)
        assert texts == plain_texts(theirs)
        assert ours.json()["usage"] == theirs.json()["usage"]
    assert sorted(texts) == [0, 1] and texts[0] != texts[1]


@pytest.mark.parametrize("stream", (False, True))
def test_several_prompts(plain, proxy, fresh, stream):
    prompts = [f"{fresh} {i} {WORD * (i + 1)}" for i in range(3)]
    body = {**request_body(COMPLETIONS, ""), "prompt": prompts, "stream": stream}
    ours, theirs = ask(proxy.url, COMPLETIONS, body), ask(plain.url, COMPLETIONS, body)
    if stream:
        texts = streamed_texts(ours.events())
        assert texts == streamed_texts(theirs.events())
    else:
        texts = plain_texts(ours)
        assert texts == plain_texts(theirs)
        assert ours.json()["usage"] == theirs.json()["usage"]
    assert len(set(texts.values())) == 3


@pytest.mark.mooncake
@pytest.mark.parametrize("path", (CHAT, COMPLETIONS))
@pytest.mark.parametrize("more", (
    {"max_completion_tokens": 3}, {"min_tokens": 5}, {"ignore_eos": True}, {"logprobs": True, "top_logprobs": 2},
    {"stop": ["e"]}, {"stop_token_ids": list(range(3, 1000))}, {"max_tokens": 1}, {"echo": True},
    {"kv_transfer_params": {"do_remote_prefill": True}}, {"user": "somebody"},
), ids=lambda more: next(iter(more)))
def test_parameters(plain, proxy, fresh, path, more):
    """Each changes what P may be told; the answer must be as if there were no P."""
    if path == COMPLETIONS and "logprobs" in more:
        more = {"logprobs": 2}
    if path == COMPLETIONS and "max_completion_tokens" in more:
        pytest.skip("/v1/completions has no max_completion_tokens")
    body = {**request_body(path, fresh + WORD), **more}
    ours = ask(proxy.url, path, body)
    body.pop("kv_transfer_params", None)
    theirs = ask(plain.url, path, body)
    assert (ours.status, theirs.status) == (200, 200), (ours.body, theirs.body)
    assert plain_texts(ours) == plain_texts(theirs)
    assert ours.json()["usage"] == theirs.json()["usage"]
    assert ours.json()["choices"][0]["finish_reason"] == theirs.json()["choices"][0]["finish_reason"]


@pytest.mark.parametrize("ours", (True, False), ids=("same_prompt", "other_prompt"))
def test_the_text_depends_on_the_kv(plain, pair, connector, fresh, ours):
    """The control, without the proxy: given the KV of another prompt of the same length, D's text differs. So equal
    texts above mean that D has the right KV."""
    mine, foreign = fresh + WORD * 4, fresh[::-1][1:] + " " + WORD[::-1] * 4
    expected = plain_texts(ask(plain.url, COMPLETIONS, request_body(COMPLETIONS, mine)))
    given = ids_of(plain, mine) if ours else same_length(plain, mine, foreign)
    for_prefill = {"do_remote_decode": True, "do_remote_prefill": False}
    transfer = f"xfer-control-{fresh.strip()}"
    if connector == "mooncake":
        for_prefill["transfer_id"] = transfer
    answer = ask(pair.prefill.url, COMPLETIONS,
                 {**request_body(COMPLETIONS, given, 1, min_tokens=1), "kv_transfer_params": for_prefill})
    assert answer.status == 200, answer.body
    for_decode = answer.json()["kv_transfer_params"]
    if connector == "mooncake":
        for_decode = {"do_remote_decode": False, "do_remote_prefill": True, "transfer_id": transfer,
                      "remote_bootstrap_addr": pair.variables["SLUICE_REAL_BOOTSTRAP"],
                      "remote_engine_id": pair.engine_id()}
    # An own salt, since wrong blocks stay in D's prefix cache.
    body = request_body(COMPLETIONS, mine, kv_transfer_params=for_decode, cache_salt=transfer)
    texts = plain_texts(ask(pair.decode.url, COMPLETIONS, body))
    assert (texts == expected) == ours


def ids_of(plain, text):
    return ask(plain.url, "/tokenize", {"model": MODEL, "prompt": text}).json()["tokens"]


def same_length(plain, text, other):
    length = len(ids_of(plain, text))
    ids = ids_of(plain, other)
    return (ids * (length // len(ids) + 1))[:length]
