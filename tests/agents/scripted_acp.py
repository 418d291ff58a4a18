"""An agent that speaks the Agent Client Protocol and plays a part: ``play NAME`` in the prompt.

A program of its own (standard library only): JSON-RPC, a message a line.
"""

from __future__ import annotations

import json
import sys
from typing import Any

Message = dict[str, Any]
USAGE = {"totalTokens": 940, "inputTokens": 500, "outputTokens": 40, "cachedReadTokens": 400}


def say(message: Message) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def hear() -> Message:
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    return json.loads(line)


def update(**fields: Any) -> None:
    params = {"sessionId": "s1", "update": fields}
    say({"method": "session/update", "params": params})


def chunk(text: str) -> None:
    update(sessionUpdate="agent_message_chunk", content={"type": "text", "text": text})


def asked_for_permission(kind: str) -> str:
    """Whether a tool of ``kind`` may be used: the option that was chosen."""
    options = [
        {"optionId": "yes", "name": "Yes", "kind": "allow_once"},
        {"optionId": "no", "name": "No", "kind": "reject_once"},
    ]
    tool = {"toolCallId": "t1", "title": f"a tool to {kind}", "kind": kind}
    params = {"sessionId": "s1", "toolCall": tool, "options": options}
    say({"id": 77, "method": "session/request_permission", "params": params})
    while (answer := hear()).get("id") != 77 or "result" not in answer:
        pass
    outcome = answer["result"]["outcome"]
    return str(outcome.get("optionId", outcome["outcome"]))


def prompted(number: int, text: str) -> None:
    result: Message = {"stopReason": "end_turn"}
    if "play hang" in text or "play deaf" in text:
        chunk("Half ")
        while hear().get("method") != "session/cancel" or "play deaf" in text:
            pass
        result = {"stopReason": "cancelled"}
    elif "play refusal" in text:
        result = {"stopReason": "refusal"}
    elif "play error" in text:
        error = {"code": -32000, "message": "please log in first"}
        say({"id": number, "error": error})
        return
    elif "play permission" in text:
        chunk("Let me see. ")
        chosen = [asked_for_permission(kind) for kind in ("read", "edit", "execute")]
        chunk(" ".join(chosen))
    else:
        chunk("All ")
        chunk("done.")
    if "play usage" in text:
        result["usage"] = USAGE
    say({"id": number, "result": result})


def main() -> None:
    while True:
        message = hear()
        method, number = message.get("method"), message.get("id")
        if method == "initialize":
            about = {"name": "scripted", "version": "1.0"}
            say({"id": number, "result": {"protocolVersion": 1, "agentInfo": about}})
        elif method == "session/new" and "--no-login" in sys.argv:
            say({"id": number, "error": {"code": -32000, "message": "please log in first"}})
        elif method == "session/new":
            say({"id": number, "result": {"sessionId": "s1"}})
        elif method == "session/prompt":
            pieces: list[Message] = message["params"]["prompt"]
            prompted(int(number or 0), "".join(str(p.get("text", "")) for p in pieces))


if __name__ == "__main__":
    main()
