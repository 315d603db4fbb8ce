# SPDX-License-Identifier: Apache-2.0
"""A prefill/decode proxy as the toys that vLLM's guides start with are built: FastAPI, one httpx client, JSON parsed
and written anew, one leg after the other. A peer for perf/peers, not a product.

    python3 toy_proxy.py PORT PREFILL_PORT DECODE_PORT
"""
import sys
import uuid

import fastapi
import fastapi.responses
import httpx
import uvicorn

prefill_url, decode_url = (f"http://127.0.0.1:{port}" for port in sys.argv[2:4])
client = httpx.AsyncClient(timeout=None, limits=httpx.Limits(max_connections=None, max_keepalive_connections=None))
app = fastapi.FastAPI()


async def handle(request: fastapi.Request, path: str):
    body = await request.json()
    headers = {"X-Request-Id": str(uuid.uuid4())}
    first = dict(body, stream=False, max_tokens=1, kv_transfer_params={
        "do_remote_decode": True, "do_remote_prefill": False, "remote_engine_id": None, "remote_block_ids": None,
        "remote_host": None, "remote_port": None})
    answer = await client.post(prefill_url + path, json=first, headers=headers)
    answer.raise_for_status()
    body["kv_transfer_params"] = answer.json()["kv_transfer_params"]

    async def parts():
        async with client.stream("POST", decode_url + path, json=body, headers=headers) as stream:
            async for part in stream.aiter_bytes():
                yield part

    kind = "text/event-stream" if body.get("stream") else "application/json"
    return fastapi.responses.StreamingResponse(parts(), media_type=kind)


@app.post("/v1/completions")
async def completions(request: fastapi.Request):
    return await handle(request, "/v1/completions")


@app.post("/v1/chat/completions")
async def chat(request: fastapi.Request):
    return await handle(request, "/v1/chat/completions")


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", access_log=False)
