"""The code blocks of the README and of docs/ run and print what the page says."""

import asyncpg
import pytest

import asyncsvc
from tests.support import pages

MAX_NOT_RUN = 16
"""Bounds the blocks that do not run, so that each new one is a decision."""
RUN = {
    page: blocks
    for page in pages.pages()
    if page != pages.TUTORIAL
    and (
        blocks := [
            block
            for block in pages.blocks_of(page)
            if block.not_run is None and not block.includes_a_file
        ]
    )
}


@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(pages.ROOT)))
async def test_the_blocks_of_the_page_run(page, dsn, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASYNCSVC_DSN", dsn)
    async with asyncsvc.connect(dsn) as svc, asyncpg.create_pool(dsn, min_size=0) as pool:
        story = pages.Story({"svc": svc, "pool": pool, "dsn": dsn}, tmp_path, dsn)
        for block in RUN[page]:
            await story.run(block)


def test_each_page_with_python_prints_something():
    for page, blocks in RUN.items():
        python = [block.source for block in blocks if block.language == "python"]
        assert not python or any(pages.EXPECTED.search(source) for source in python), page


def test_few_blocks_do_not_run():
    reasons = [
        f"{block}: {block.not_run}"
        for page in pages.pages()
        for block in pages.blocks_of(page)
        if block.not_run is not None
    ]
    assert len(reasons) <= MAX_NOT_RUN, "\n".join(reasons)


async def test_a_block_awaits_shares_names_and_prints_its_expected_output(tmp_path):
    text = "```python\nimport asyncio\n\none = await asyncio.sleep(0, 1)\n```\n"
    text += "1. A list:\n\n   ```python\n   print(one, 'of 7')\n   # > 1 of ...\n   ```\n"
    story = pages.Story({}, tmp_path, "")
    first, second = pages.parse(text, "page.md")
    await story.run(first)
    await story.run(second)
    assert (first.line, second.line) == (2, 9)


@pytest.mark.parametrize("source", ["print(1)\n# > 2\n", "print(1)\n", "# > 1\n"])
async def test_another_output_than_the_expected_one_fails(source, tmp_path):
    (block,) = pages.parse(f"```python\n{source}```\n", "page.md")
    with pytest.raises(AssertionError, match=r"page.md:2 printed"):
        await pages.Story({}, tmp_path, "").run(block)


async def test_a_console_block_compares_the_output_of_each_command(tmp_path):
    (block,) = pages.parse("```console\n$ echo a\na\n$ ls no; echo $?\n...\n2\n```\n", "page.md")
    await pages.Story({}, tmp_path, "").run(block)
    (block,) = pages.parse("```console\n$ echo a\n$ echo b\nb\n```\n", "page.md")
    with pytest.raises(AssertionError, match="echo a printed"):
        await pages.Story({}, tmp_path, "").run(block)


async def test_a_script_must_succeed(tmp_path):
    (block,) = pages.parse("```sh\nfalse\ntrue\n```\n", "page.md")
    with pytest.raises(AssertionError):
        await pages.Story({}, tmp_path, "").run(block)


def test_a_mark_gives_the_reason_why_a_block_does_not_run():
    text = "<!-- not run: needs two hosts -->\n\n```sh\npsql\n```\n```json\n{}\n```\n"
    (block,) = pages.parse(text, "page.md")
    assert block.not_run == "needs two hosts"
