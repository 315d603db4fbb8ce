#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Records what Mooncake's transfer engine sends over TCP, as caller and as answerer: wheel.json beside this file.

Run it with a Python that has mooncake-transfer-engine-non-cuda (scripts/real-vllm setup makes one):
  .deps/real-vllm/bin/python tests/vectors/mooncake/record.py
Bytes are hexadecimal; unit.transport's MooncakeWire tests read them."""
import ctypes
import importlib.metadata
import json
import pathlib
import socket
import struct
import threading

from mooncake.engine import TransferEngine

FAR = 1 << 60  # an address that no process has
POOL = 1 << 20
out = {"wheel": importlib.metadata.version("mooncake-transfer-engine-non-cuda")}


def read(sock, count):
    got = b""
    while len(got) < count:
        more = sock.recv(count - len(got))
        if not more:
            raise EOFError
        got += more
    return got


def listener():
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(16)
    return sock, sock.getsockname()[1]


def serve(version, name):
    """A peer of that version: what the engine says to it."""
    (shake, shake_port), (data, data_port) = listener(), listener()
    segment = {"name": f"127.0.0.1:{shake_port}", "protocol": "tcp", "tcp_data_port": data_port, "timestamp": "",
               "buffers": [{"name": "cpu:0", "addr": FAR, "length": FAR}], "devices": [], "priority_matrix": {}}
    if version > 1:
        segment["tcp_proto_version"] = version

    def handshakes():
        sock, _ = shake.accept()
        length = read(sock, 8)
        out[name + "_metadata_request"] = (length + read(sock, struct.unpack("<Q", length)[0])).hex()
        reply = b"\x01" + (json.dumps(segment) + "\n").encode()
        sock.sendall(struct.pack("<Q", len(reply)) + reply)
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1)

    def writes():
        sock, _ = data.accept()
        header = read(sock, 24)
        out[name + "_write"] = (header + read(sock, struct.unpack("<Q", header[:8])[0])).hex()
        if version > 1:
            sock.sendall(struct.pack("<Q", 0x4D43545600000000))

    threads = [threading.Thread(target=each, daemon=True) for each in (handshakes, writes)]
    for thread in threads:
        thread.start()
    ctypes.memmove(memory, b"a block of 16 by", 16)
    assert engine.transfer_sync_write(f"127.0.0.1:{shake_port}", memory, FAR + 4096, 16) == 0
    for thread in threads:
        thread.join(10)


def ask(type_, text):
    with socket.create_connection(("127.0.0.1", port)) as sock:
        body = bytes([type_]) + text.encode()
        sock.sendall(struct.pack("<Q", len(body)) + body)
        length = read(sock, 8)
        return length + read(sock, struct.unpack("<Q", length)[0])


def data(request, reply_bytes):
    with socket.create_connection(("127.0.0.1", data_port)) as sock:
        sock.sendall(request)
        return read(sock, reply_bytes).hex()


pool = ctypes.create_string_buffer(POOL)
memory = ctypes.addressof(pool)
engine = TransferEngine()
assert engine.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") == 0
assert engine.register_memory(memory, POOL) == 0
port = engine.get_rpc_port()
serve(1, "v1")
serve(2, "v2")
reply = ask(1, json.dumps({"name": "127.0.0.1:1", "protocol": "tcp", "tcp_data_port": 1, "buffers": []}) + "\n")
out["metadata_reply"] = reply.hex()
out["probe_reply"] = ask(3, "{}\n").hex()
out["notify_reply"] = ask(2, '{"name":"a","notify_msg":"m"}\n').hex()
data_port = json.loads(reply[9:])["tcp_data_port"]
out["write_status"] = data(struct.pack("<QQB7x", 4, memory, 0x81) + b"abcd", 8)
out["refused_status"] = data(struct.pack("<QQB7x", 4, 123, 0x81) + b"abcd", 8)
out["read_reply"] = data(struct.pack("<QQB7x", 4, memory, 0x80), 12)
pathlib.Path(__file__).with_name("wheel.json").write_text(json.dumps(out, indent=1) + "\n")
