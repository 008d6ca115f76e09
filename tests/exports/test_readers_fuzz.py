"""Any JSON gives a record that the import can check, or the error of a reader."""

from hypothesis import given, settings
from hypothesis import strategies as st

from asyncsvc.exports import READERS, Notes, UnreadableError, read_conversation

KEYS = """
    mapping current_node id parent message author role content content_type parts text metadata
    create_time thoughts chat_messages uuid sender type parent_message_uuid attachments
    extracted_content history messages currentId parentId output usage prompt_tokens annotation
    rating chat conversationId messagesTree children messageId parentMessageId feedback
    inserted_at fragments tool_calls timestamp title name models value think
""".split()  # noqa: SIM905 - as prose
WORDS = [
    "a", "b", "user", "text", "thinking", "assistant", "reasoning", "tool_use", "code", "think",
    '<details type="reasoning">', "</details>", "\ud800", "2026-01-01T00:00:00Z", 1_760_000_000,
]  # fmt: skip
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(WORDS),
)
KEY = st.sampled_from(KEYS) | st.sampled_from("ab") | st.text(max_size=4)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEY, inner, max_size=6),
    max_leaves=40,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(KEY, JSON, max_size=8), st.sampled_from(READERS))
def test_a_reader_raises_only_its_own_error(element, reader):
    check(element, reader)


TREES = st.lists(
    st.fixed_dictionaries(
        {"id": st.sampled_from("abcd")},
        optional={
            "parent": st.sampled_from("abcd"),
            "message": st.fixed_dictionaries(
                {"content": JSON, "author": JSON, "create_time": SCALARS}
            ),
        },
    ),
    max_size=6,
)


@settings(max_examples=300, deadline=None)
@given(TREES, SCALARS)
def test_any_tree_has_a_branch_or_a_cycle(nodes, current):
    check({"mapping": {each["id"]: each for each in nodes}, "current_node": current}, READERS[0])


def check(element, reader) -> None:
    if not isinstance(element, dict):
        return
    reader.matches(element)
    try:
        record = read_conversation(element, reader=reader, notes=Notes())
    except UnreadableError:
        return
    if record is not None:
        assert {"id", "messages", "source"} <= record.keys()
        assert all(isinstance(each["content"], str) for each in record["messages"])
        times = [each["created_at"] for each in record["messages"] if each["created_at"]]
        assert not times or record["created_at"] <= min(times) <= max(times) <= record["updated_at"]
