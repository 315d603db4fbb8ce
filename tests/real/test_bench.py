# SPDX-License-Identifier: Apache-2.0
"""vLLM's own load generator runs through the proxy without an error."""
import json
import os
import pathlib
import subprocess
import sys

import pytest
from harness import CHAT, COMPLETIONS, MODEL, shell

pytestmark = pytest.mark.usefixtures("nothing_held")


@pytest.mark.parametrize("backend, path", (("openai", COMPLETIONS), ("openai-chat", CHAT)))
def test_bench_serve(pair, proxy, connector, tmp_path, backend, path):
    folder = pathlib.Path(sys.prefix)
    count = 40 if connector == "mooncake" else 6
    command = [
        str(folder / "bin/vllm"), "bench", "serve", "--backend", backend, "--base-url", proxy.url, "--endpoint", path,
        "--model", MODEL, "--tokenizer", str(folder / "model"), "--dataset-name", "random",
        "--random-input-len", "100", "--random-output-len", "16", "--num-prompts", str(count),
        "--max-concurrency", "4", "--save-result", "--result-dir", str(tmp_path), "--result-filename", "result.json",
    ]
    environment = {
        **os.environ, "PYTHONPATH": str(folder / "path"), "VLLM_TARGET_DEVICE": "cpu", "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1", "CUDA_VISIBLE_DEVICES": "",
    }
    before = pair.decode.transferred_tokens()
    done = subprocess.run(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=600)
    print(shell(command))
    print("\n".join(done.stdout.splitlines()[-30:]))
    assert done.returncode == 0, done.stdout[-3000:]
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["completed"], result["failed"]) == (count, 0), result.get("errors")
    assert pair.decode.transferred_tokens() - before > 0
