"""What pools of both kinds do alike."""

from __future__ import annotations

from typing import Union

import pytest

from fastspawn import STREAM, Engine, ResettablePool, WarmPool
from sinks import Sink

Pool = Union[type[WarmPool], type[ResettablePool]]  # noqa: UP007 - 3.10

each = pytest.mark.parametrize("pool_of", [WarmPool, ResettablePool])


@each
async def test_an_input_is_bytes(engine: Engine, pool_of: Pool) -> None:
    """And no number of zeros."""
    async with pool_of(["cat"], size=1, engine=engine) as pool:
        for wrong in (5, [1], "x"):
            with pytest.raises(TypeError):
                await pool.run(wrong)  # type: ignore[arg-type]
        sink = Sink()
        job = pool.submit(sink, STREAM)
        with pytest.raises(TypeError):
            job.write(5)  # type: ignore[arg-type]
        job.write(memoryview(b"abcd")[::3])
        job.write_eof()
        await sink.ended
        assert sink.output == b"ad"


@each
async def test_what_is_written_after_the_end(engine: Engine, pool_of: Pool) -> None:
    """It goes nowhere, and whoever writes hears of it."""
    async with pool_of(["cat"], size=1, engine=engine) as pool:
        for kind in (STREAM, b"all", None):
            sink = Sink()
            job = pool.submit(sink, kind)
            if kind is STREAM:
                job.write(b"all")
                job.write_eof()
            for _ in range(2):
                with pytest.raises(BrokenPipeError):
                    job.write(bytes(300_000))
            ended = await sink.ended
            assert (sink.output, ended.returncode) == (b"all" if kind else b"", 0)


@each
async def test_when_it_does_not_run(engine: Engine, pool_of: Pool) -> None:
    pool = pool_of(["cat"], size=1, engine=engine)
    for _ in range(2):
        for args in (None, ["-"]):
            with pytest.raises(RuntimeError, match="not running"):
                await pool.run(args=args)
        await pool.start()
        with pytest.raises(RuntimeError, match="running already"):
            await pool.start()
        assert (await pool.run(b"x")).stdout == b"x"
        await pool.close()
