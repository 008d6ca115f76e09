"""RAGFlow's `api_service.py` on this library: the same methods and results, as coroutines.

```python
from asyncsvc import ragflow

sessions = ragflow.API4ConversationService(svc, tenant_id=tenant_id, tz="Asia/Shanghai")
total, rows = await sessions.get_list(agent_id, tenant_id, 1, 30, "update_time", True)
```

A service is for one tenant. Each method calls the services of the library, which new code should
use directly. The pages in `docs/ragflow/` list the differences from RAGFlow, and explain the import
of its data.
"""

from asyncsvc.ragflow.common import CommonService
from asyncsvc.ragflow.conditions import API4Conversation, APIToken
from asyncsvc.ragflow.conversations import API4ConversationService
from asyncsvc.ragflow.shapes import Record
from asyncsvc.ragflow.token_rows import TokenRow, TokenRows
from asyncsvc.ragflow.tokens import APITokenService

__all__ = [
    "API4Conversation",
    "API4ConversationService",
    "APIToken",
    "APITokenService",
    "CommonService",
    "Record",
    "TokenRow",
    "TokenRows",
]
