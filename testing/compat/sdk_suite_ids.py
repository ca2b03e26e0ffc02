"""Gives each test of the official SDK an object of its own in place of the mock server's, whose ids the tests name.

Only the address of a request changes; its body and the tests are as they were.
"""

import json
import os
import urllib.request

from openai._base_client import BaseClient

CONVERSATION, ITEM = "conv_123", "msg_abc"
RESPONSES = ["resp_677efb5139a88190b512bc3fef8e535d", "response_id"]


def made(path, body):
    request = urllib.request.Request(
        f"{os.environ['TEST_API_BASE_URL']}/{path}",
        data=json.dumps(body).encode() if body is not None else None,
        headers={"Authorization": f"Bearer {os.environ['BATON_API_KEY']}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def with_real_ids(url):
    parts = url.split("/")
    if CONVERSATION in parts:
        items = [{"role": "user", "content": "hello"}]
        conversation = made("conversations", {"items": items})["id"]
        parts[parts.index(CONVERSATION)] = conversation
        if ITEM in parts:
            [item] = made(f"conversations/{conversation}/items", None)["data"]
            parts[parts.index(ITEM)] = item["id"]
    for response in RESPONSES:
        if response in parts:
            parts[parts.index(response)] = made("responses", {"model": "plain", "input": "hello"})["id"]
    return "/".join(parts)


prepare_url = BaseClient._prepare_url
BaseClient._prepare_url = lambda self, url: prepare_url(self, with_real_ids(url))
