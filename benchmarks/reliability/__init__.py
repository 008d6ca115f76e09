"""Reliability runs: `python -m benchmarks.reliability crash` and `... soak`."""

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """The base of the reports and of the messages between processes."""

    model_config = ConfigDict(frozen=True)
