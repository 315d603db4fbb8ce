# SPDX-License-Identifier: Apache-2.0
"""What the tests in front of real vLLM are made of: the instances of scripts/real-vllm, the proxy as a process, a
client that can leave at any moment, and vLLM's own metrics."""
import contextlib
import dataclasses
import http.client
import json
import os
import pathlib
import re
import shlex
import signal
import socket
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SCRIPT = ROOT / "scripts/real-vllm"
BINARY = os.environ.get("SLUICE_BINARY", str(ROOT / "build/release/sluice"))
MODEL = "Qwen/Qwen2.5-7B-Instruct"
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"

ABORT_TIMEOUT_S = 8  # how long P keeps what nobody fetches, and D waits for what does not come, less a minute
ANSWER_LIMIT_S = 120  # of one request; the machine may be busy, nothing here measures speed
MODEL_LENGTH = 1024  # --max-model-len of scripts/real-vllm
READY_LIMIT_S = 600  # an instance's start
POLL_S = 0.1


def wait_until(condition, limit_s, what):
    """Polls until the condition is true; a failure says what it last was."""
    deadline = time.monotonic() + limit_s
    while True:
        value = condition()
        if value is True:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} not within {limit_s} s; last: {value!r}")
        time.sleep(POLL_S)


@dataclasses.dataclass
class Instance:
    url: str
    pid: int

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=ANSWER_LIMIT_S) as answer:
            return answer.read().decode()

    def metric(self, name, labels=""):
        """The sum of a metric's samples whose labels contain the text."""
        found = [
            float(line.rsplit(" ", 1)[1])
            for line in self.get("/metrics").splitlines()
            if re.match(re.escape(name) + r"[{ ]", line) and labels in line
        ]
        assert found, f"{self.url}/metrics has no {name} {labels}"
        return sum(found)

    def transferred_tokens(self):
        return self.metric("vllm:prompt_tokens_by_source_total", 'source="external_kv_transfer"')

    def held(self):
        """What it still holds or does, by its own metrics; empty when it is idle."""
        names = ("vllm:kv_cache_usage_perc", "vllm:num_requests_running", "vllm:num_requests_waiting")
        values = {name: self.metric(name) for name in names}
        return {name: value for name, value in values.items() if value}

    def processes(self, name):
        """Its engine cores or workers: `EngineCore`, `Worker`."""
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError, ValueError):
                stat = (entry / "stat").read_text()
                session = int(stat.rsplit(")", 1)[1].split()[3])
                command = (entry / "cmdline").read_bytes()
                if session == self.pid and name.encode() in command:
                    yield int(entry.name)

    @contextlib.contextmanager
    def frozen(self):
        """Its engine stands still while its API server goes on."""
        stopped = [pid for name in ("VLLM::EngineCore", "VLLM::Worker") for pid in self.processes(name)]
        assert stopped, f"no engine processes of {self.pid} found"
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in stopped:
                with contextlib.suppress(ProcessLookupError):  # the test may have killed it
                    os.kill(pid, signal.SIGCONT)

    def kill(self):
        """Dead when this returns, so that scripts/real-vllm does not take it for running."""
        os.killpg(self.pid, signal.SIGKILL)
        wait_until(lambda: not pathlib.Path(f"/proc/{self.pid}/stat").exists(), 30, f"{self.pid} is gone")


def real_vllm(*arguments):
    """Runs scripts/real-vllm and gives the variables that it printed."""
    done = subprocess.run(
        [str(SCRIPT), *arguments], stdout=subprocess.PIPE, text=True, timeout=READY_LIMIT_S + 60, check=True
    )
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if not line.startswith("#"))


class Set:
    """A pair with one connector, or a plain instance."""

    def __init__(self, mode, run, *more):
        self.mode, self.run = mode, str(run)
        self.options = ["--run", self.run, "--wait", str(READY_LIMIT_S), *more]
        if mode == "mooncake":
            self.options += ["--abort-timeout", str(ABORT_TIMEOUT_S)]
        self.start()

    def start(self, *more):
        """Starts what does not run."""
        self.variables = real_vllm("up", self.mode, *self.options, *more)

    def _instance(self, name):
        return Instance(self.variables[f"SLUICE_REAL_{name}"], int(self.variables[f"SLUICE_REAL_{name}_PID"]))

    @property
    def prefill(self):
        return self._instance("PREFILL")

    @property
    def decode(self):
        return self._instance("DECODE")

    @property
    def plain(self):
        return self._instance("PLAIN")

    def engine_id(self):
        with urllib.request.urlopen(self.variables["SLUICE_REAL_BOOTSTRAP"] + "/query", timeout=10) as answer:
            return json.load(answer)["0"]["engine_id"]

    def down(self):
        real_vllm("down", "--run", self.run)


class Proxy:
    def __init__(self, pair, *more, decodes=()):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        bootstrap = pair.variables.get("SLUICE_REAL_BOOTSTRAP")
        self.url = f"http://127.0.0.1:{port}"
        self.log = tempfile.NamedTemporaryFile("w+", suffix=".log")
        self.process = subprocess.Popen(
            [BINARY, "proxy", "--port", str(port), "--workers", "1", "--kv-connector", pair.mode,
             "--prefill", pair.prefill.url, bootstrap.rsplit(":", 1)[1] if bootstrap else "none",
             *(word for each in decodes or [pair.decode] for word in ("--decode", each.url)),
             "--health-interval", "0.5", *more],
            stdout=self.log, stderr=subprocess.STDOUT,
        )
        wait_until(self.ready, 60, "the proxy is ready")

    def ready(self):
        assert self.process.poll() is None, pathlib.Path(self.log.name).read_text()
        try:
            return Answer.of(self.url, "GET", "/ready").status == 200
        except OSError as error:
            return str(error)

    def metric(self, name):
        text = Answer.of(self.url, "GET", "/metrics").body.decode()
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))

    def stop(self):
        self.process.terminate()
        assert self.process.wait(60) == 0, pathlib.Path(self.log.name).read_text()


@dataclasses.dataclass
class Answer:
    status: int
    fields: dict
    body: bytes

    @staticmethod
    def of(url, method, path, body=None, headers=None):
        where = urllib.parse.urlsplit(url)
        connection = http.client.HTTPConnection(where.hostname, where.port, timeout=ANSWER_LIMIT_S)
        try:
            if body is not None and not isinstance(body, (bytes, str)):
                body = json.dumps(body)
            headers = {"Content-Type": "application/json"} if headers is None else headers
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            fields = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, fields, answer.read())
        finally:
            connection.close()

    def json(self):
        return json.loads(self.body)

    def events(self):
        """The data of a stream's events; it must be whole."""
        assert self.status == 200, self.body
        assert self.fields["content-type"].startswith("text/event-stream"), self.fields
        events = [event.removeprefix("data: ") for event in self.body.decode().split("\n\n") if event]
        assert events[-1] == "[DONE]", self.body[-300:]
        return [json.loads(event) for event in events[:-1]]


def ask(url, path, body):
    return Answer.of(url, "POST", path, body)


def request_body(path, text, tokens=12, **more):
    body = {"model": MODEL, "max_tokens": tokens, "temperature": 0, **more}
    if path == CHAT:
        return {**body, "messages": [{"role": "user", "content": text}]}
    return {**body, "prompt": text}


def choice_text(choice):
    return choice["message"]["content"] if "message" in choice else choice["text"]


def plain_texts(answer):
    assert answer.status == 200, answer.body
    return {choice["index"]: choice_text(choice) for choice in answer.json()["choices"]}


def streamed_texts(events):
    texts = {}
    for event in events:
        for choice in event["choices"]:
            piece = choice["delta"].get("content") if "delta" in choice else choice["text"]
            texts[choice["index"]] = texts.get(choice["index"], "") + (piece or "")
    return texts


class Leaver:
    """A client that sends a request and goes away when it likes."""

    def __init__(self, url, path, body, *fields):
        where = urllib.parse.urlsplit(url)
        fields = "".join(f"{field}\r\n" for field in fields)
        text = json.dumps(body).encode()
        self.socket = socket.create_connection((where.hostname, where.port), timeout=ANSWER_LIMIT_S)
        self.socket.sendall(
            f"POST {path} HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(text)}\r\n{fields}\r\n".encode() + text
        )
        self.received = b""

    def read_until(self, text):
        while text not in self.received:
            piece = self.socket.recv(65536)
            assert piece, f"ended before {text!r}: {self.received!r}"
            self.received += piece

    def rest(self):
        with contextlib.suppress(ConnectionResetError):
            while piece := self.socket.recv(65536):
                self.received += piece
        return self.received

    def leave(self):
        self.socket.close()


def curl(url, path, body):
    done = subprocess.run(
        ["curl", "-sSN", "--max-time", str(ANSWER_LIMIT_S), url + path, "-H", "Content-Type: application/json",
         "--data-binary", "@-", "-D", "/dev/stderr"],
        input=json.dumps(body).encode(), capture_output=True, check=True,
    )
    lines = done.stderr.decode().splitlines()
    fields = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
    return Answer(int(lines[0].split()[1]), fields, done.stdout)


def shell(command):
    return shlex.join(command)
