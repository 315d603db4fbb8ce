# SPDX-License-Identifier: Apache-2.0
"""Mooncake's own transfer engine as the peer of wheel_test.cpp. Usage: engine.py FILE BYTES

Its memory is FILE, which the test has mapped too. Says "PORT ADDRESS"; then each line of its input is a write:
ENDPOINT and triples of source offset, destination address, length. Says what the engine returned."""
import ctypes
import mmap
import sys

from mooncake.engine import TransferEngine

size = int(sys.argv[2])
with open(sys.argv[1], "r+b") as file:
    memory = mmap.mmap(file.fileno(), size)
base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
engine = TransferEngine()
assert engine.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") == 0
assert engine.register_memory(base, size) == 0
print(engine.get_rpc_port(), base, flush=True)
for line in sys.stdin:
    endpoint, *numbers = line.split()
    numbers = [int(number) for number in numbers]
    sources = [base + offset for offset in numbers[0::3]]
    print(engine.batch_transfer_sync_write(endpoint, sources, numbers[1::3], numbers[2::3]), flush=True)
