"""Conversations to render chat templates with."""


def function(name, description, **properties):
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {
                "type": "object",
                "properties": properties,
                "required": list(properties)[:1],
            },
        },
    }


TOOLS = [
    function(
        "get_weather",
        "Says how the weather is, \"now\" & here.",
        city={"type": "string", "description": "Where: Zürich, say"},
        days={"type": "integer", "enum": [1, 2, 3], "default": 1},
    ),
    function("stop", "Ends it."),
]


def call(arguments, name="get_weather", identifier="call12345"):
    return {"type": "function", "id": identifier, "function": {"name": name, "arguments": arguments}}


USER = {"role": "user", "content": "  Hi, \"you\" & <me>!\n"}
SYSTEM = {"role": "system", "content": " Be brief. "}
ANSWER = {"role": "assistant", "content": "Hello."}
THOUGHT = {"role": "assistant", "content": "<think>\nHm, 1 + 1.\n</think>\n\nIt is 2."}
ARGUMENTS = {"city": "Zürich", "days": 2, "exact": True, "note": None, "more": {"a": [1, 2.5], "b": "x"}}
CALLING = {"role": "assistant", "content": "", "tool_calls": [call(ARGUMENTS)]}
RESULT = {"role": "tool", "name": "get_weather", "tool_call_id": "call12345", "content": "{\"sun\": true}"}


def chat(*messages, **variables):
    return {
        "messages": list(messages),
        "tools": None,
        "documents": None,
        "add_generation_prompt": True,
        "bos_token": "<s>",
        "eos_token": "</s>",
        **variables,
    }


CONVERSATIONS = {
    "user": chat(USER),
    "user-end": chat(USER, add_generation_prompt=False),
    "system": chat(SYSTEM, USER),
    "turns": chat(USER, ANSWER, {"role": "user", "content": "Bye"}),
    "turns-end": chat(SYSTEM, USER, ANSWER, {"role": "user", "content": "Bye"}, ANSWER, add_generation_prompt=False),
    "not-alternating": chat(USER, USER, ANSWER),
    "assistant-first": chat(ANSWER, USER),
    "empty": chat(),
    "no-bos": {k: v for k, v in chat(SYSTEM, USER).items() if k not in ("bos_token", "eos_token")},
    "thought": chat(USER, THOUGHT, {"role": "user", "content": "And 2 + 2?"}),
    "thought-last": chat(USER, THOUGHT, add_generation_prompt=False),
    "reasoning": chat(
        USER,
        {"role": "assistant", "content": "It is 2.", "reasoning_content": "Hm,\n1 + 1.", "thinking": "Hm,\n1 + 1."},
        {"role": "user", "content": "And 2 + 2?"},
    ),
    "thinking-on": chat(SYSTEM, USER, enable_thinking=True, thinking=True, reasoning_effort="high"),
    "thinking-off": chat(SYSTEM, USER, enable_thinking=False, thinking=False, reasoning_effort="low"),
    "tools": chat(SYSTEM, USER, tools=TOOLS),
    "tools-no-system": chat(USER, tools=TOOLS),
    "no-tools": chat(SYSTEM, USER, tools=[]),
    "call": chat(SYSTEM, USER, CALLING, RESULT, tools=TOOLS),
    "call-answered": chat(USER, CALLING, RESULT, {"role": "assistant", "content": "Sun."}, USER, tools=TOOLS),
    "call-text": chat(
        USER,
        {"role": "assistant", "content": None, "tool_calls": [call("{\"city\": \"Zürich\"}")]},
        RESULT,
        tools=TOOLS,
    ),
    "calls": chat(
        SYSTEM,
        USER,
        {
            "role": "assistant",
            "content": "Let me see.",
            "reasoning_content": "Both.",
            "tool_calls": [call(ARGUMENTS), call({}, "stop", "call67890")],
        },
        RESULT,
        {**RESULT, "name": "stop", "tool_call_id": "call67890", "content": "ok"},
        tools=TOOLS,
        enable_thinking=True,
    ),
    "call-bare": chat(
        USER,
        {"role": "assistant", "tool_calls": [{"name": "get_weather", "arguments": ARGUMENTS}]},
        RESULT,
        tools=TOOLS,
    ),
    "parts": chat(
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "text", "text": "See:"}, {"type": "image"}, {"type": "text", "text": "?"}]},
    ),
    "documents": chat(SYSTEM, USER, documents=[{"title": "A", "text": "One."}, {"title": "B", "text": "Two."}]),
    "unicode": chat({"role": "user", "content": "Zürich \u2581 \U0001f600 \u00a0\t\r\n\u3000"}),
    "developer": chat({"role": "developer", "content": "Be kind."}, USER),
    "unknown-role": chat({"role": "critic", "content": "No."}, USER),
}

# Snippets see this one.
SNIPPETS = chat(
    SYSTEM,
    {"role": "user", "content": "  Hi, \"you\" & <me>! "},
    {"role": "assistant", "content": "Hello.\nThere."},
    {"role": "user", "content": "Bye"},
    numbers=[3, 1, 2],
    person={"name": "Ada", "age": 36, "tags": ["x", "y"], "items": 7},
    text="Some Text, 'quoted'",
)
