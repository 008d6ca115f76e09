"""The example with the application's own pool: its stored rows and its OpenAPI document."""

from examples import own_pool
from tests.integrations.test_fastapi import running


async def test_the_rows_of_both_are_stored_in_one_transaction(dsn, pool, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", dsn)
    async with running(own_pool.app) as client:
        created = (await client.post("/conversations", params={"user_id": "ann"})).json()
        appended = (await client.post(f"/conversations/{created['id']}/parcels/7")).json()
        missing = await client.post("/conversations/absent/parcels/8")
        page = (await client.get("/conversations", params={"user_id": "ann"})).json()
        wrong = await client.get("/conversations", params={"user_id": "ann", "after": "nonsense"})
    assert (wrong.status_code, wrong.json()["detail"][:6]) == (422, "after:")
    assert appended["last_seq"] == 1
    assert missing.status_code == 404
    assert (page["total"], [item["id"] for item in page["items"]]) == (1, [created["id"]])
    assert [row["number"] for row in await pool.fetch("SELECT number FROM parcel")] == ["7"]


def test_openapi_describes_each_field_of_the_models():
    schemas = own_pool.app.openapi()["components"]["schemas"]
    ours = {"Page_Conversation_", "Conversation", "StoredMessage", "Appended", "UsageBucket"}
    assert ours <= schemas.keys()
    for name in ours:
        assert schemas[name]["description"]
        missing = [
            field for field, schema in schemas[name]["properties"].items()
            if not schema.get("description")
        ]  # fmt: skip
        assert missing == [], name
