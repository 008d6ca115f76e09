"""Each reader turns a conversation of its product into the fields of a record."""

from datetime import UTC, datetime

import pytest

from asyncsvc import ConversationRecord, Settings, Usage
from asyncsvc.exports import READERS, Notes, Part, UnreadableError, find_reader, read_conversation
from asyncsvc.exports.model import ExportedConversation, Node
from asyncsvc.exports.values import moment


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def read(element, **options):
    notes = Notes()
    return read_conversation(element, notes=notes, **options), notes


def texts(record) -> list[tuple[str, str]]:
    return [(each["role"], each["content"]) for each in record["messages"]]


# ---------------------------------------------------------------- ChatGPT


def node(id: str, parent: str | None, role: str = "", text: object = "", **more):
    if not role:
        return id, {"id": id, "parent": parent, "message": None}
    content = {"content_type": "text", "parts": [text]} if isinstance(text, str) else text
    message = {"id": id, "author": {"role": role}, "content": content}
    return id, {"id": id, "parent": parent, "message": message | more}


def tree(*nodes, **more):
    return {"id": "c", "title": "t", "create_time": 1_000, "mapping": dict(nodes)} | more


ROOT = node("r", None)
QUESTION = node("q", "r", "user", "why?", create_time=1_010)


def test_the_named_leaf_is_the_visible_branch_and_otherwise_the_newest():
    first = node("a", "q", "assistant", "first", create_time=1_030)
    second = node("b", "q", "assistant", "second", create_time=1_020)
    third = node("c", "b", "user", "more")
    for current, last in {"b": "second", "c": "more", "gone": "first", "": "first"}.items():
        record, notes = read(tree(ROOT, QUESTION, first, second, third, current_node=current))
        assert texts(record)[-1][1] == last
    assert notes.left_out["other_branch"] == 2
    record, _ = read(
        tree(ROOT, QUESTION, second, node("d", "q", "assistant", "tie", create_time=1_020))
    )
    assert texts(record)[-1] == ("assistant", "tie")


def test_a_missing_parent_ends_the_branch_and_a_cycle_is_refused():
    record, _ = read(tree(node("q", "gone", "user", "x"), current_node="q"))
    assert texts(record) == [("user", "x")]
    loop = [node("x", "y", "user", "x"), node("y", "x", "user", "y")]
    for current in ("x", None):
        with pytest.raises(UnreadableError, match="cycle"):
            read(tree(*loop, current_node=current))


def test_hidden_nodes_are_counted_and_not_stored():
    hidden = {"metadata": {"is_visually_hidden_from_conversation": True}}
    context = {"content_type": "user_editable_context", "user_profile": "secret"}
    record, notes = read(
        tree(
            ROOT,
            node("h1", "r", "user", context),
            node("h2", "h1", "system", "x", **hidden),
            node("h3", "h2", "system", ""),
            node("h4", "h3", "user", "y", metadata={"is_user_system_message": True}),
            node("q", "h4", "user", "why?"),
        )
    )
    assert texts(record) == [("user", "why?")]
    assert notes.left_out == {"hidden": 4}
    assert notes.hidden_types == {"user_editable_context": 1, "text": 3}


CONTENTS = [
    (
        {"content_type": "thoughts", "thoughts": [{"summary": "s", "content": "c"}]},
        "s\n\nc",
        "thinking",
    ),
    ({"content_type": "reasoning_recap", "content": "recap"}, "recap", None),
    ({"content_type": "code", "language": "python", "text": "1+1"}, "1+1", None),
    ({"content_type": "execution_output", "text": "2"}, "2", None),
    ({"content_type": "tether_quote", "text": "q", "url": "u"}, "q", None),
    ({"content_type": "tether_browsing_display", "summary": "s"}, "s", None),
    ({"content_type": "brand_new", "result": "r"}, "r", None),
    (
        {
            "content_type": "multimodal_text",
            "parts": [
                {"content_type": "audio_transcription", "text": "spoken", "direction": "in"},
                {"content_type": "audio_asset_pointer", "asset_pointer": "sediment://a"},
                "typed",
            ],
        },
        "spoken\ntyped",
        None,
    ),
]


@pytest.mark.parametrize(("content", "text", "kind"), CONTENTS)
def test_the_text_of_each_content_type_is_searchable(content, text, kind):
    record, notes = read(tree(ROOT, node("a", "r", "assistant", content)))
    (message,) = record["messages"]
    assert (message["content"], message["payload"].get("kind")) == (text, kind)
    assert notes.unknown_types == (
        {"brand_new": 1} if content["content_type"] == "brand_new" else {}
    )
    for value in ("python", "sediment://a"):
        assert (value in str(message["payload"])) == (value in str(content))


def test_fields_of_messages_are_in_the_payload_or_counted():
    references = [{"url": "u"}]
    record, notes = read(
        tree(
            ROOT,
            node(
                "a", "r", "assistant", "x", recipient="web.run", status="in_progress", weight=1,
                author={"role": "assistant", "name": "w"},
                metadata={"model_slug": "m", "content_references": references, "request_id": "z"},
            ),
            node("b", "a", "assistant", "y", recipient="all", status="finished_successfully"),
            default_model_slug="d", gizmo_id="g", voice=None,
        )
    )  # fmt: skip
    first, second = record["messages"]
    assert first["payload"] == {
        "id": "a", "model": "m", "name": "w", "recipient": "web.run", "status": "in_progress",
        "content_references": references,
    }  # fmt: skip
    assert second["payload"] == {"id": "b", "model": "d"}
    assert record["metadata"] == {"default_model_slug": "d", "gizmo_id": "g"}
    assert notes.omitted_fields == {"weight": 1, "metadata.request_id": 1}


def test_missing_fields_are_accepted():
    bare = {"parent": None, "message": {"content": {"parts": ["x"]}}}
    record, _ = read({"mapping": {"a": bare}})
    assert texts(record) == [("unknown", "x")]
    assert record["created_at"] is record["updated_at"] is None


def test_times_never_contradict_each_other():
    for create, update, message, created, updated in [
        (None, None, None, None, None),
        (None, 2_000, None, 2_000, 2_000),
        (3_000, 2_000, None, 3_000, 3_000),
        (3_000, 5_000, 1_000, 1_000, 5_000),
        (None, 500, 1_000, 500, 1_000),
        ("2026-01-01T00:00:00Z", None, None, 1_767_225_600, 1_767_225_600),
    ]:
        nodes = (ROOT, node("q", "r", "user", "x", create_time=message))
        record, notes = read(tree(*nodes, create_time=create, update_time=update))
        times = record["created_at"], record["updated_at"]
        assert times == tuple(each and at(each) for each in (created, updated))
        (only,) = record["messages"]
        assert created is None or record["created_at"] <= only["created_at"] <= record["updated_at"]
        assert notes.missing_times == (message is None)


def test_feedback_sets_the_thumb_of_its_message():
    record, notes = read(tree(ROOT, QUESTION), thumbs={("c", "q"): -1, ("c", "gone"): 1})
    assert [each["thumb"] for each in record["messages"]] == [-1]
    assert notes.feedback == 1


def test_a_derived_id_stays_when_the_conversation_grows():
    answer = node("a", "q", "assistant", "x", create_time=1_020)
    ids = {
        read(tree(*nodes, id=None))[0]["id"]
        for nodes in ((ROOT, QUESTION), (ROOT, QUESTION, answer))
    }
    assert len(ids) == 1
    assert read(tree(ROOT, QUESTION, id=None, create_time=1))[0]["id"] not in ids


# ---------------------------------------------------------------- Claude


def claude(*messages, **more):
    created_at = "2026-01-01T00:00:00.000001Z"
    return {"uuid": "c", "name": "n", "created_at": created_at, "chat_messages": [*messages]} | more


def claude_message(id: str, sender: str, *blocks, **more):
    return {"uuid": id, "sender": sender, "content": list(blocks), "text": ""} | more


def block(text: str) -> dict[str, object]:
    return {"type": "text", "text": text}


def test_claude_follows_parents_in_any_order_and_lists_without_them():
    sentinel = "00000000-0000-4000-8000-000000000000"
    messages = [
        claude_message(
            "b",
            "assistant",
            block("late"),
            parent_message_uuid="a",
            created_at="2026-01-01T00:00:09Z",
        ),
        claude_message(
            "c",
            "assistant",
            block("early"),
            parent_message_uuid="a",
            created_at="2026-01-01T00:00:05Z",
        ),
        claude_message("a", "human", block("hi"), parent_message_uuid=sentinel),
    ]
    record, notes = read(claude(*messages))
    assert texts(record) == [("user", "hi"), ("assistant", "late")]
    assert notes.left_out == {"other_branch": 1}
    record, _ = read(claude(*messages, current_leaf_message_uuid="c"))
    assert texts(record)[-1] == ("assistant", "early")
    plain = [
        claude_message("a", "human", block("one")),
        claude_message("b", "assistant", block("two")),
    ]
    assert texts(read(claude(*plain))[0]) == [("user", "one"), ("assistant", "two")]


def test_claude_text_comes_from_blocks_and_only_without_them_from_text():
    fence = "```\nThis block is not supported on your current device yet.\n```\n\n"
    record, notes = read(
        claude(
            claude_message("a", "human", block("x"), block("y"), text=f"{fence}x"),
            claude_message(
                "b", "assistant", {"type": "tool_use", "name": "t"}, text=f"{fence}only here"
            ),
            claude_message("c", "human", content='[{"type": "text", "text": "as JSON"}]'),
            claude_message("d", "assistant", {"type": "flag"}, {"type": "novel", "z": 1}),
        )
    )
    assert [text for _, text in texts(record)] == ["x\n\ny", "only here", "as JSON", ""]
    assert notes.left_out == {"machinery": 1}
    assert notes.unknown_types == {"novel": 1}
    assert notes.payload_only == {"call": 1, "unknown": 1}


def test_claude_pasted_text_is_content_and_thinking_a_message_of_its_own():
    pasted = {"file_name": "p.txt", "extracted_content": "pasted"}
    record, _ = read(
        claude(
            claude_message("a", "human", block("see"), attachments=[pasted]),
            claude_message("b", "assistant", {"type": "thinking", "thinking": "hm"}, block("ok")),
        )
    )
    assert texts(record) == [
        ("user", "see\n\np.txt\npasted"), ("assistant", "hm"), ("assistant", "ok"),
    ]  # fmt: skip
    assert [each["payload"]["id"] for each in record["messages"]] == ["a", "b/thinking", "b"]


def test_an_empty_conversation_is_counted_and_not_stored():
    record, notes = read(claude())
    assert record is None
    assert notes.left_out == {"empty_conversation": 1}


# ---------------------------------------------------------------- Open WebUI


def webui(messages: dict[str, dict[str, object]], current: str | None = None, **more):
    chat = {"title": "inner", "history": {"messages": messages, "currentId": current}}
    return {"id": "c", "title": "t", "created_at": 1_000, "updated_at": 2_000, "chat": chat} | more


def test_openwebui_walks_from_the_current_message_to_its_last_child():
    messages = {
        "q": {"role": "user", "content": "hi", "parentId": None, "timestamp": 1_001},
        "a": {
            "role": "assistant",
            "content": "one",
            "parentId": "q",
            "timestamp": 1_002_000_000_000,
        },
        "b": {"role": "assistant", "content": "two", "parentId": "q", "timestamp": 1_003},
        "n": {"content": "no role", "parentId": "b", "timestamp": 1_004},
    }
    for current, last in {"q": "two", "a": "one", None: "one", "gone": "one"}.items():
        record, notes = read(webui(messages, current))
        assert texts(record)[-1][1] == last
    record, notes = read(webui(messages, "b"))
    assert notes.left_out == {"no_role": 1, "other_branch": 1}


def test_openwebui_tokens_thumbs_and_details():
    details = (
        '<details type="reasoning" done="true">\n<summary>Thought</summary>\n&gt; deep &amp; wide\n'
        '</details>\nThe answer. <details type="tool_calls" name="f">&quot;x&quot;</details>'
    )
    usage = {"input_tokens": 2, "output_tokens": 3}
    answer = {
        "role": "assistant", "content": details, "parentId": None, "usage": usage,
        "model": "m", "annotation": {"rating": -1},
    }  # fmt: skip
    record, notes = read(webui({"a": answer}))
    assert texts(record) == [("assistant", "deep & wide"), ("assistant", "The answer.")]
    assert record["usage"] == [Usage(input_tokens=2, output_tokens=3, model="m")]
    assert record["messages"][1]["thumb"] == -1
    assert notes.payload_only == {"call": 1}
    image = {"type": "image_url", "image_url": {"url": "data:" + "x" * 2**24}}
    listed = {"role": "user", "content": [{"type": "text", "text": "see"}, image], "parentId": None}
    record, notes = read(webui({"a": listed}))
    assert texts(record) == [("user", "see")]
    assert notes.changed == {"payload.parts dropped": 1}


def test_openwebui_unclosed_details_stay_text():
    content = 'x <details type="reasoning">' * 2_000
    record, _ = read(webui({"a": {"role": "user", "content": content, "parentId": None}}))
    assert texts(record)[0][1].startswith("x")


# ---------------------------------------------------------------- others


def test_librechat_reads_trees_of_any_depth_and_flat_lists():
    tree = message = {"messageId": "0", "text": "m0", "isCreatedByUser": True, "children": []}
    for number in range(1, 3_000):
        child = {
            "messageId": f"{number}", "parentMessageId": f"{number - 1}", "text": f"m{number}",
            "isCreatedByUser": number % 2 == 0, "children": [],
        }  # fmt: skip
        message["children"].append(child)
        message = child
    record, _ = read({"conversationId": "c", "messagesTree": [tree]})
    assert len(record["messages"]) == 3_000
    flat = [{"messageId": "a", "sender": "User", "text": "x"}, {"messageId": "b", "text": "y"}]
    record, _ = read({"conversationId": "c", "messages": flat})
    assert texts(record) == [("user", "x"), ("assistant", "y")]


def test_the_usage_of_a_conversation_is_summed_by_model():
    openai = {"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": {
        "cached_tokens": 4}}  # fmt: skip
    ollama = {"prompt_eval_count": 7, "eval_count": 2, "eval_duration": 10**9}
    messages = {
        "1": {"role": "user", "content": "q", "parentId": None},
        "2": {"role": "assistant", "content": "a", "parentId": "1", "model": "x", "usage": openai},
        "3": {"role": "assistant", "content": "b", "parentId": "2", "model": "y",
              "info": {"usage": ollama}},
        "4": {"role": "assistant", "content": "c", "parentId": "3", "model": "x", "usage": openai},
        "5": {"role": "assistant", "content": "d", "parentId": "3", "usage": openai},
        "6": {"role": "assistant", "content": "e", "parentId": "4", "usage": {"total": "many"}},
    }  # fmt: skip
    record, _ = read(webui(messages, "6"))
    assert record["usage"] == [
        Usage(input_tokens=10, output_tokens=2, cached_input_tokens=8, requests=2, model="x"),
        Usage(input_tokens=7, output_tokens=2, model="y"),
    ]


def test_a_usage_is_stored_whatever_its_export_contains():
    answers = {
        f"{number}": {
            "role": "assistant", "content": "a", "parentId": f"{number - 1}" if number else None,
            "model": f"m{number}", "usage": {"prompt_tokens": 10**12 + number % 2},
        }
        for number in range(50)
    }  # fmt: skip
    record, notes = read(webui(answers, "49"))
    assert len(record["usage"]) == 31
    assert notes.changed == {"usage dropped": 1}  # the sum of the other models


def test_librechat_counts_the_tokens_of_answers():
    messages = [
        {"messageId": "a", "isCreatedByUser": True, "text": "q", "tokenCount": 9},
        {"messageId": "b", "isCreatedByUser": False, "text": "a", "tokenCount": 30, "model": "m"},
        {"messageId": "c", "isCreatedByUser": False, "text": "b"},
    ]
    record, _ = read({"conversationId": "c", "messages": messages})
    assert record["usage"] == [Usage(input_tokens=0, output_tokens=30, model="m")]


def test_lines_of_openai_have_the_usage_of_a_message_or_of_the_line():
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    question, answer = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
    line = {"messages": [question, answer], "model": "m", "usage": usage}
    expected = [Usage(input_tokens=3, output_tokens=2, model="m")]
    assert read(line)[0]["usage"] == expected
    assert read({"messages": [question, answer | {"usage": usage, "model": "m"}]})[0]["usage"] == (
        expected
    )
    assert read({"messages": [question, answer]})[0]["usage"] == []


def test_deepseek_is_distinguished_from_chatgpt():
    question = {"type": "REQUEST", "content": "q"}
    fragments = [{"type": "THINK", "content": "hm"}, {"type": "RESPONSE", "content": "yes"}]
    element = {
        "id": "c", "title": "t", "inserted_at": "2026-01-01T08:00:00.5+08:00",
        "mapping": {
            "root": {"id": "root", "parent": None, "message": None},
            "1": {"parent": "root", "message": {"fragments": [question]}},
            "2": {"parent": "1", "message": {"fragments": fragments, "model": "r1"}},
        },
    }  # fmt: skip
    record, _ = read(element)
    assert record["source"] == "deepseek"
    assert texts(record) == [("user", "q"), ("assistant", "hm"), ("assistant", "yes")]
    assert record["created_at"] == datetime(2026, 1, 1, 0, 0, 0, 500_000, UTC)


def test_openai_messages_without_ids_get_the_same_ids_again():
    call = {"id": "k", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "ask"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "42", "tool_call_id": "k"},
    ]
    short, long = (read({"messages": messages[:count]})[0] for count in (2, 3))
    assert texts(long) == [("user", "ask"), ("assistant", ""), ("tool", "42")]
    assert long["messages"][1]["payload"]["tool_calls"] == [call]
    assert short["id"] == long["id"]
    assert long["messages"][:2] == short["messages"]


def test_a_new_format_needs_one_reader():
    class Novel:
        name = "novel"

        def matches(self, head):
            return "novel" in head

        def read(self, element, notes):  # noqa: ARG002 - the interface
            node = Node(id="1", role="user", parts=(Part("text", element["novel"]),))
            return ExportedConversation(
                id="c", name=None, created_at=None, updated_at=None, current=None, metadata={},
                nodes=(node,),
            )  # fmt: skip

    assert find_reader({"novel": "x"}) is None
    reader = find_reader({"novel": "x"}, [*READERS, Novel()])
    record, _ = read({"novel": "x"}, reader=reader)
    assert (record["source"], texts(record)) == ("novel", [("user", "x")])


def test_values_that_exceed_the_limits_are_cut_or_dropped_by_name():
    deep: object = 0
    for _ in range(100):
        deep = [deep]
    long = tree(ROOT, QUESTION, title="x" * 600, deep=deep, big="y" * 2**24, small=1)
    record, notes = read(long)
    assert (len(record["name"]), record["metadata"]) == (512, {"small": 1})
    assert notes.changed == {"name cut": 1, "metadata.deep dropped": 1, "metadata.big dropped": 1}
    ConversationRecord.model_validate(record | {"dialog_id": "d"}, context=Settings())


@pytest.mark.parametrize(
    ("value", "time"),
    [
        (1_000, at(1_000)), (1_760_000_000_123, at(1_760_000_000.123)), (0, None), (-1, None),
        (True, None), (float("nan"), None), (float("inf"), None), (10**400, None),
        ("1899-12-31T00:00:00Z", None), ("2026-01-01", datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-01-01T00:00:00.123456789Z", datetime(2026, 1, 1, 0, 0, 0, 123_456, UTC)),
        ({"$date": {"$numberLong": "1760000000123"}}, at(1_760_000_000.123)), ("soon", None),
    ],
)  # fmt: skip
def test_times_of_any_form(value, time):
    assert moment(value) == time
