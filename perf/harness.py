# SPDX-License-Identifier: Apache-2.0
"""What perf/peers and perf/scale share: processes that always end, free ports, one `sluice load`, the machine."""
import http.client
import json
import os
import pathlib
import platform
import signal
import socket
import subprocess
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
START_SECONDS = 30
MODEL = "m"


class Bench:
    """Programs from one folder, started on chosen processors, stopped when the `with` block ends."""

    def __init__(self, programs, libraries=None):
        self.programs = pathlib.Path(programs)
        self.environment = dict(os.environ)
        if libraries:
            self.environment["LD_LIBRARY_PATH"] = str(libraries)
        self.folder = tempfile.TemporaryDirectory(prefix="sluice-perf-")
        self.running = []

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.stop(self.running[:])
        self.folder.cleanup()

    def program(self, name):
        path = self.programs / name
        if not path.exists():
            raise SystemExit(f"{path} is missing; build it: cmake --preset release && "
                             f"cmake --build --preset release --target {name}")
        return str(path)

    def start(self, command, cpus=None, environment=None, name="process"):
        log = open(pathlib.Path(self.folder.name) / f"{name}-{len(self.running)}.log", "w+b")
        process = subprocess.Popen(
            [str(word) for word in command], stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            env=self.environment | (environment or {}), start_new_session=True,
            preexec_fn=(lambda: os.sched_setaffinity(0, cpus)) if cpus else None)
        process.log = log
        process.label = name
        self.running.append(process)
        return process

    def stop(self, processes):
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + 5
        for process in processes:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            process.log.close()
            self.running.remove(process)

    def wait_for(self, process, port, path="/v1/completions"):
        """Until a request through it succeeds."""
        body = json.dumps({"model": MODEL, "prompt": "hello there, are you ready?", "max_tokens": 1})
        deadline = time.monotonic() + START_SECONDS
        last = ""
        while time.monotonic() < deadline and process.poll() is None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            try:
                connection.request("POST", path, body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                last = f"{answer.status} {answer.read()[:200]}"
                if answer.status == 200:
                    return
            except (OSError, http.client.HTTPException) as error:
                last = repr(error)
            finally:
                connection.close()
            time.sleep(0.1)
        process.log.seek(0)
        raise RuntimeError(f"{process.label} is not ready on port {port}: {last}\n"
                           f"{process.log.read()[-2000:].decode(errors='replace')}")

    def wait_for_port(self, process, port):
        """For one that must not be sent anything that does not count."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            listening = f":{port:04X} "
            for line in pathlib.Path("/proc/net/tcp").read_text().splitlines():
                if f"{listening}00000000:0000 0A" in line:
                    return
            time.sleep(0.05)
        raise RuntimeError(f"{process.label} does not listen on port {port}")

    def load(self, port, flags, cpus=None, seconds_max=300):
        """One run of `sluice load`; its JSON."""
        command = [self.program("sluice"), "load", f"http://127.0.0.1:{port}", "--model", MODEL, "--format", "json",
                   "--progress", "0", *flags]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=self.environment,
                              timeout=seconds_max, check=False,
                              preexec_fn=(lambda: os.sched_setaffinity(0, cpus)) if cpus else None)
        if not done.stdout.startswith("{"):
            raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stderr}{done.stdout}")
        return json.loads(done.stdout)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answer_bytes(port, request, end):
    """How many bytes a server sends for `request`, up to and with `end`."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request)
        received = b""
        while not received.endswith(end):
            part = connection.recv(1 << 20)
            if not part:
                raise RuntimeError(f"the answer ended early: {received[-200:]!r}")
            received += part
    return len(received)


def output_of(command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
        return (done.stdout + done.stderr).strip()
    except OSError:
        return ""


def revision():
    """Of the sources that the programs were built from; a bundle (perf/peers --bundle) has it in a file."""
    noted = HERE / "REVISION"
    if noted.exists():
        return noted.read_text().strip()
    return output_of(["git", "-C", str(ROOT), "describe", "--always", "--dirty"])


def machine():
    model = ""
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory = pathlib.Path("/proc/meminfo").read_text().split("\n", 1)[0].split()[1]
    return {"processor": model, "processors": os.cpu_count(), "usable": len(os.sched_getaffinity(0)),
            "memory_gib": round(int(memory) / (1 << 20), 1), "kernel": platform.release(),
            "load_average": list(os.getloadavg()), "when": time.strftime("%Y-%m-%d %H:%M:%S %Z")}
