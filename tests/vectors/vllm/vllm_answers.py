#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The stand-in engine answers as vLLM does: in status, header fields, JSON members, their order and kinds, the chunks
of a stream, and the words of errors. What vLLM answers was recorded from the real thing and lies beside this file.

    vllm_answers.py check BINARY    starts `BINARY engine` and compares it with the recording
    vllm_answers.py record URL      writes the recording anew from `scripts/real-vllm up plain`
    vllm_answers.py compare URL     compares whatever answers at URL with the recording
"""
import difflib
import http.client
import json
import pathlib
import subprocess
import sys
import time
import urllib.parse

RECORDING = pathlib.Path(__file__).with_name("vllm_answers.json")
MODEL = "Qwen/Qwen2.5-7B-Instruct"
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
TIMEOUT_S = 60
READY_LIMIT_S = 20
JSON = {"Content-Type": "application/json"}

# Members whose text says what something is, rather than being content.
VERBATIM = {"object", "role", "finish_reason", "stop_reason", "detail", "type", "param", "code", "message", "owned_by",
            "organization", "loc", "msg"}
# Differ by nature: lengths, dates, and what names the software and its version.
IGNORED_FIELDS = {"date", "content-length"}
# Names of the metrics that proxies and tests read; the stand-in has no others to offer.
METRICS = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:num_requests_waiting_by_reason",
           "vllm:kv_cache_usage_perc", "vllm:prompt_tokens_total", "vllm:generation_tokens_total",
           "vllm:prompt_tokens_by_source_total", "vllm:external_prefix_cache_queries_total",
           "vllm:external_prefix_cache_hits_total", "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total",
           "vllm:request_success_total", "vllm:admission_rejections_total", "vllm:num_preemptions_total",
           "vllm:cache_config_info")


def chat(**more):
    return {"model": MODEL, "messages": [{"role": "user", "content": "hello there"}], "max_tokens": 3,
            "temperature": 0, **more}


def completion(**more):
    return {"model": MODEL, "prompt": "hello there", "max_tokens": 3, "temperature": 0, **more}


def without(body, name):
    return {key: value for key, value in body.items() if key != name}


def requests():
    """(name, method, path, header fields, body)"""
    usage = {"stream_options": {"include_usage": True}}
    always = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    for name, path, make in (("chat", CHAT, chat), ("completions", COMPLETIONS, completion)):
        good = {
            "plain": make(), "stream": make(stream=True), "stream_usage": make(stream=True, **usage),
            "stream_usage_always": make(stream=True, **always), "two": make(n=2, temperature=0.8, seed=7),
            "token_ids": make(return_token_ids=True), "stream_token_ids": make(return_token_ids=True, stream=True),
            "no_model": without(make(), "model"),
            "unknown_field": make(nonsense=1), "null_fields": make(stop=None, n=None, stream=None, user=None),
            "kv_params_without_connector": make(kv_transfer_params={"do_remote_decode": True}),
            "no_max_tokens_but_completion": {**make(), "max_completion_tokens": 2},
            "min_tokens": make(min_tokens=2),
        }
        if path == COMPLETIONS:
            good["echo"] = make(echo=True)
        bad = {
            "too_long": make(**({"prompt": "long " * 2000} if path == COMPLETIONS else
                                {"messages": [{"role": "user", "content": "long " * 2000}]})),
            "unknown_model": make(model="nope"), "max_tokens_0": make(max_tokens=0),
            "max_tokens_huge": make(max_tokens=100000), "max_tokens_negative": make(max_tokens=-1),
            "min_above_max": make(min_tokens=20, max_tokens=10), "temperature_negative": make(temperature=-1),
            "temperature_text": make(temperature="warm"), "top_p_0": make(top_p=0), "top_p_high": make(top_p=1.5),
            "top_k_low": make(top_k=-2), "n_0": make(n=0), "n_negative": make(n=-1), "n_text": make(n="x"),
            "two_greedy": make(n=2), "presence_high": make(presence_penalty=3),
            "stream_options_alone": make(**usage), "stream_options_text": make(stream=True, stream_options="x"),
            "stream_text": make(stream="perhaps"), "stop_number": make(stop=5),
            "stop_token_ids_text": make(stop_token_ids=["a"]), "kv_params_text": make(kv_transfer_params="x"),
            "max_tokens_float": make(max_tokens=2.5), "max_tokens_text": make(max_tokens="x"),
            "min_tokens_negative": make(min_tokens=-1),
            "stream_too_max": make(stream=True, max_tokens=100000), "seed_text": make(seed="x"),
        }
        for title, body in {**good, **bad}.items():
            yield f"{name}_{title}", "POST", path, JSON, body
        for title, text in (("empty", ""), ("open", "{"), ("list", "[]"), ("text", '"x"'), ("number", "5"),
                            ("null", "null"), ("no_members", "{}")):
            yield f"{name}_body_{title}", "POST", path, JSON, text
        yield f"{name}_text_plain", "POST", path, {"Content-Type": "text/plain"}, make()
        yield f"{name}_no_type", "POST", path, {}, make()
        yield f"{name}_charset", "POST", path, {"Content-Type": "application/json; charset=utf-8"}, make()
        yield f"{name}_get", "GET", path, {}, None
        yield f"{name}_request_id", "POST", path, {**JSON, "X-Request-Id": "mine"}, make()
        for rank in ("0", "1", "-1", "abc"):
            yield f"{name}_rank_{rank}", "POST", path, {**JSON, "X-data-parallel-rank": rank}, make()
        yield (f"{name}_stream_rank_1", "POST", path, {**JSON, "X-data-parallel-rank": "1"}, make(stream=True))

    yield "chat_no_messages", "POST", CHAT, JSON, chat(messages=[])
    yield "chat_messages_missing", "POST", CHAT, JSON, without(chat(), "messages")
    yield "chat_messages_text", "POST", CHAT, JSON, chat(messages="hello")
    parts = [{"type": "text", "text": "x"}]
    yield "chat_parts", "POST", CHAT, JSON, chat(messages=[{"role": "user", "content": parts}])
    yield "completions_empty", "POST", COMPLETIONS, JSON, completion(prompt="")
    yield "completions_empty_list", "POST", COMPLETIONS, JSON, completion(prompt=[])
    yield "completions_no_prompt", "POST", COMPLETIONS, JSON, without(completion(), "prompt")
    yield "completions_prompt_object", "POST", COMPLETIONS, JSON, completion(prompt={})
    yield "completions_two_prompts", "POST", COMPLETIONS, JSON, completion(prompt=["one", "two"])
    yield "completions_ids", "POST", COMPLETIONS, JSON, completion(prompt=[5, 6, 7])
    yield "completions_lists_of_ids", "POST", COMPLETIONS, JSON, completion(prompt=[[5, 6], [7]])
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    yield "chat_tools_auto", "POST", CHAT, JSON, chat(tools=[tool])
    yield "chat_tools_required", "POST", CHAT, JSON, chat(tools=[tool], tool_choice="required")
    yield "chat_tools_none", "POST", CHAT, JSON, chat(tools=[tool], tool_choice="none")
    yield "chat_tool_choice_alone", "POST", CHAT, JSON, chat(tool_choice="auto")

    for path in ("/health", "/ping", "/version", "/load", "/v1/models"):
        name = path.strip("/").replace("/", "_")
        yield name, "GET", path, {}, None
        yield f"{name}_delete", "DELETE", path, {}, None
        yield f"{name}_head", "HEAD", path, {}, None
    yield "ping_post", "POST", "/ping", {}, ""
    yield "model_by_name", "GET", "/v1/models/" + MODEL, {}, None
    yield "unknown_path", "GET", "/nope", {}, None
    yield "unknown_path_post", "POST", "/v1/nope", JSON, {}
    yield "trailing_slash", "GET", "/v1/models/", {}, None
    yield "query_string", "GET", "/v1/models?x=1", {}, None
    yield "generate_without_scale_out", "POST", "/inference/v1/generate", JSON, {}
    yield "tokenize", "POST", "/tokenize", JSON, {"model": MODEL, "prompt": "hello"}
    yield "tokenize_chat", "POST", "/tokenize", JSON, {"messages": [{"role": "user", "content": "x"}]}
    yield "tokenize_token_strs", "POST", "/tokenize", JSON, {"prompt": "hello", "return_token_strs": True}
    yield "tokenize_nothing", "POST", "/tokenize", JSON, {}
    yield "tokenize_unknown_model", "POST", "/tokenize", JSON, {"model": "nope", "prompt": "x"}
    yield "detokenize", "POST", "/detokenize", JSON, {"model": MODEL, "tokens": [5, 6]}
    yield "detokenize_nothing", "POST", "/detokenize", JSON, {}
    yield "detokenize_text", "POST", "/detokenize", JSON, {"tokens": ["a"]}
    yield "detokenize_negative", "POST", "/detokenize", JSON, {"tokens": [-1]}


def ask(url, method, path, fields, body):
    where = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=TIMEOUT_S)
    try:
        if body is not None and not isinstance(body, str):
            body = json.dumps(body)
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in fields.items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body.encode() if body is not None else None)
        answer = connection.getresponse()
        return answer.status, answer.getheaders(), answer.read().decode()
    finally:
        connection.close()


def shape(value, name=""):
    """The value with its content replaced by its kind. Of a list: the shapes in it, without repetition."""
    if isinstance(value, dict):
        return {key: shape(each, key) for key, each in value.items()}
    if isinstance(value, list):
        shapes = []
        for each in value:
            if (found := shape(each, name)) not in shapes:
                shapes.append(found)
        return shapes
    if value is None or isinstance(value, bool) or name in VERBATIM:
        return value
    return "text" if isinstance(value, str) else "number"


def shape_of_body(content_type, text):
    if content_type.startswith("application/json") and text:
        return shape(json.loads(text))
    if content_type.startswith("text/event-stream"):
        shapes = []
        for event in text.split("\n\n"):
            data = event.removeprefix("data: ")
            found = shape(json.loads(data)) if data.startswith("{") else event
            if not shapes or shapes[-1] != found:
                shapes.append(found)
        return shapes
    return text


def metrics_of(text):
    """Which of the metrics are there, with which labels."""
    found = {}
    for line in text.splitlines():
        name = line.split("{")[0]
        if name in METRICS:
            labels = [label.split("=")[0] for label in line.partition("{")[2].partition("}")[0].split('",')]
            found[name] = sorted(label for label in labels if name != "vllm:cache_config_info")
    return dict(sorted(found.items()))


def recorded_form(url, request):
    name, method, path, fields, body = request
    status, answer_fields, text = ask(url, method, path, fields, body)
    kept = {key.lower(): value for key, value in answer_fields if key.lower() not in IGNORED_FIELDS}
    if "location" in kept:
        kept["location"] = urllib.parse.urlsplit(kept["location"]).path
    return {"status": status, "fields": dict(sorted(kept.items())),
            "body": shape_of_body(kept.get("content-type", ""), text)}


def answers_of(url):
    answers = {}
    for request in requests():
        assert request[0] not in answers, request[0]
        answers[request[0]] = recorded_form(url, request)
    status, fields, text = ask(url, "GET", "/metrics", {}, None)
    answers["metrics"] = {"status": status, "content-type": dict(fields).get("content-type") or
                          dict(fields).get("Content-Type"), "names": metrics_of(text)}
    return answers


def lines_of(answer):
    return json.dumps(answer, indent=1, ensure_ascii=False).splitlines()


def compare(url):
    recorded, found = json.loads(RECORDING.read_text()), answers_of(url)
    different = 0
    for name in sorted(recorded.keys() | found.keys()):
        real, ours = recorded.get(name), found.get(name)
        if json.dumps(real) == json.dumps(ours):  # as text, since the order of members counts
            continue
        different += 1
        print("\n".join(difflib.unified_diff(lines_of(real), lines_of(ours), f"vLLM: {name}", f"here: {name}", "", "",
                                             2, "")))
    print(f"{len(recorded)} answers, {different} different")
    return different


def check(binary):
    """Against the stand-in, with the settings of the instance that was recorded."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    engine = subprocess.Popen([binary, "engine", MODEL, "--port", str(port), "--max-model-len", "1024",
                               "--sim-version", "0.32.0"],
                              stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + READY_LIMIT_S
        while True:
            try:
                ask(f"http://127.0.0.1:{port}", "GET", "/health", {}, None)
                break
            except OSError:
                assert engine.poll() is None and time.monotonic() < deadline, "the engine does not come up"
                time.sleep(0.02)
        return compare(f"http://127.0.0.1:{port}")
    finally:
        engine.terminate()
        engine.wait(READY_LIMIT_S)


def main():
    action, target = sys.argv[1:]
    if action == "record":
        RECORDING.write_text(json.dumps(answers_of(target), indent=1, ensure_ascii=False) + "\n")
        print(f"recorded in {RECORDING}")
        return 0
    return 1 if {"check": check, "compare": compare}[action](target) else 0


if __name__ == "__main__":
    sys.exit(main())
