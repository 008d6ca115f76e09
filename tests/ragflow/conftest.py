"""RAGFlow's services on a database of the test."""

import pytest

import asyncsvc
from asyncsvc import AsyncSvc, Settings, ragflow
from tests.support.ragflow_rows import TENANT


@pytest.fixture
def sessions(svc: AsyncSvc) -> ragflow.API4ConversationService:
    return ragflow.API4ConversationService(svc, tenant_id=TENANT, tz="Asia/Shanghai")


@pytest.fixture
async def tokens(dsn: str):
    async with asyncsvc.connect(dsn, settings=Settings(accept_foreign_tokens=True)) as svc:
        yield ragflow.APITokenService(svc, tenant_id=TENANT)
