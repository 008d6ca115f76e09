"""The maps of the answers of providers, with the objects of their SDKs."""

from google.genai.types import GenerateContentResponse
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import ResponseUsage

from asyncsvc import Usage
from asyncsvc.metering import usage_from_gemini, usage_from_openai, usage_from_openrouter
from tests.api.test_metering import EMBEDDINGS, GEMINI, OPENAI_CHAT, OPENAI_RESPONSE, OPENROUTER

CHUNK = {"id": "c", "created": 1, "object": "chat.completion.chunk", "choices": []}


def test_the_last_chunk_of_a_chat_is_mapped():
    chunk = ChatCompletionChunk.model_validate(OPENAI_CHAT | CHUNK)
    assert usage_from_openai(chunk) == usage_from_openai(OPENAI_CHAT)
    assert usage_from_openai(chunk.model_copy(update={"usage": None})) is None


def test_the_cost_of_openrouter_is_an_attribute_that_the_sdk_does_not_know():
    chunk = ChatCompletionChunk.model_validate(OPENROUTER | CHUNK)
    assert usage_from_openrouter(chunk) == usage_from_openrouter(OPENROUTER)
    assert usage_from_openrouter(chunk).cost is not None


def test_the_usage_of_a_response_is_mapped():
    usage = ResponseUsage.model_validate(OPENAI_RESPONSE["usage"])
    assert usage_from_openai(usage, model="m") == usage_from_openai(OPENAI_RESPONSE, model="m")


def test_the_usage_of_embeddings_is_mapped():
    answer = CreateEmbeddingResponse.model_validate(EMBEDDINGS | {"data": []})
    model = "text-embedding-3-small"
    assert usage_from_openai(answer) == Usage(input_tokens=8, output_tokens=0, model=model)


def test_the_answer_of_gemini_is_mapped():
    answer = GenerateContentResponse.model_validate(GEMINI)
    assert usage_from_gemini(answer) == usage_from_gemini(GEMINI)
