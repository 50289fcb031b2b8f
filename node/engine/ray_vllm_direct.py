"""The engine called directly, inside the replica: what bench/bench_engine.py compares with.

Added only where the spec says `bench`. One call runs `streams` generations of `tokens` tokens each
against AsyncLLM, `requests` times over, with nothing of ours between.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from typing import Any

import grpc
from vllm.inputs.engine import tokens_input
from vllm.sampling_params import RequestOutputKind, SamplingParams

METHOD = "/sovereign.engine.v1.Bench/Direct"


def add_direct_call(server: Any, engine: Any) -> None:
    """Registers METHOD: JSON in ({"streams", "requests", "tokens", "prompt"}), JSON out."""
    rounds = 0

    async def direct(request: bytes, context: Any) -> bytes:
        nonlocal rounds
        rounds += 1
        wanted = json.loads(request)
        tokenizer = engine.get_tokenizer()

        parameters = SamplingParams(
            max_tokens=wanted["tokens"],
            temperature=0.0,
            ignore_eos=True,
            output_kind=RequestOutputKind.DELTA,
        )

        async def one(number: int) -> int:
            count = 0
            for turn in range(wanted["requests"]):
                # What anybody who calls vLLM has to do for a conversation.
                messages = [{"role": "user", "content": f"{wanted['prompt']} {number} {turn}"}]
                text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
                prompt = tokens_input(tokenizer.encode(text, add_special_tokens=False))
                name = f"direct-{rounds}-{number}-{turn}"
                async for output in engine.generate(prompt, parameters, name):
                    count += len(output.outputs[0].token_ids)
            return count

        began, cpu = time.perf_counter(), time.process_time()
        counts = await asyncio.gather(*(one(number) for number in range(wanted["streams"])))
        answer = {
            "pid": os.getpid(),
            "tokens": sum(counts),
            "seconds": time.perf_counter() - began,
            "cpu_seconds": time.process_time() - cpu,
        }
        return json.dumps(answer).encode()

    service, method = METHOD.strip("/").split("/")
    handler = grpc.unary_unary_rpc_method_handler(direct)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
