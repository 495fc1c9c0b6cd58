"""Mode ``raw`` where the exit status says more than whether: ``outcome.Judge`` is asked.

The head waits for the exit, within limits (``--hold``); once it is sent, an exit that makes it
wrong breaks the answer off, as a failure does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .raw import RawExchange
from .response import BODYLESS
from .route import Judging

if TYPE_CHECKING:
    from fastspawn.serve.job import Job

    from .exchange import Connection
    from .outcome import Verdict


class JudgedExchange(RawExchange):
    __slots__ = ()

    route: Judging

    @property
    def _start_status(self) -> int:
        return self.route.judge.start

    def _finish(self, connection: Connection, job: Job) -> None:
        verdict = self.route.judge.judge(job)
        if self.head_sent:
            if verdict.good:
                self._end_stream(connection, job.output)
            else:
                self._break_off(connection, job)
            return
        output = self._whole(job)
        if verdict.status >= 500:
            self._tell(job, output)
        if verdict.text is not None:
            self._send_error(connection, verdict.status, verdict.text, verdict.fields)
        else:
            self._answer_with(connection, verdict, output)

    def _answer_with(self, connection: Connection, verdict: Verdict, output: bytes) -> None:
        self.status = status = verdict.status
        if status in BODYLESS:
            output = b""
        head = self.route.heads.answered(status, len(output), end=self._end(connection))
        self._send_sized(connection, head, output)
