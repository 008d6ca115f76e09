"""Each step of the tutorial runs with the file of that step, beginning in an empty folder."""

import asyncio
import contextlib
import dataclasses
import re
import runpy
import shutil

import pytest
import uvicorn

from asyncsvc import embedded
from tests.support import pages

FILE = pages.ROOT / "docs" / "start" / "chat.py"
PORT = "localhost:8000"
SECTION = re.compile(r"# --8<-- \[start:(\w+)\]\n(.*?)# --8<-- \[end:\1\]\n", re.DOTALL)
SECTIONS = dict(SECTION.findall(FILE.read_text(encoding="utf-8")))
INCLUDE = re.compile(r'--8<-- "docs/start/chat\.py:(\w+)"\n')
BLOCKS = [block for block in pages.blocks_of(pages.TUTORIAL) if block.not_run is None]


@contextlib.asynccontextmanager
async def running(path):
    """Run the service of a file, and yield its address."""
    app = runpy.run_path(str(path))["app"]
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        assert not serving.done()
        await asyncio.sleep(0.01)
    try:
        yield f"localhost:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


async def test_each_step_of_the_tutorial_runs(tmp_path, monkeypatch):
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    story = pages.Story({}, tmp_path, "")
    chat, data = tmp_path / "chat.py", tmp_path / "data"
    try:
        for block in BLOCKS:
            if include := INCLUDE.fullmatch(block.source):
                with chat.open("a", encoding="utf-8") as file:
                    file.write(SECTIONS[include[1]])
            elif PORT in block.source:
                server = await embedded.status(data)
                monkeypatch.setenv("ASYNCSVC_DSN", server.dsn)
                async with running(chat) as address:
                    source = block.source.replace(PORT, address)
                    await story.run(dataclasses.replace(block, source=source))
            else:
                await story.run(block)
    finally:
        await embedded.stop(data)


def test_the_steps_together_produce_the_finished_file():
    included = [include[1] for block in BLOCKS if (include := INCLUDE.fullmatch(block.source))]
    assert included == list(SECTIONS)
    assert SECTION.sub("", FILE.read_text(encoding="utf-8")) == ""
