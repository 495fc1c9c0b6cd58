"""``make manual``: docs/fastspawn.1, the manual page, from the parsers of the commands."""

from __future__ import annotations

import os
import re
from pathlib import Path
from unittest import mock

PAGE = Path(__file__).parents[1] / "docs" / "fastspawn.1"


def made() -> str:
    """The page as it should be."""
    from argparse_manpage.manpage import Manpage

    from fastspawn._cli.completion import everything

    with mock.patch.dict(os.environ, COLUMNS="80"):  # argparse asks for it
        text = str(Manpage(everything()))
    # No date, which would make it another page every day; and what whatis(1) looks for.
    text = re.sub(r"\A\.TH .*", '.TH FASTSPAWN "1" "" "fastspawn" "User Commands"', text)
    return text.replace(
        ".SH NAME\nfastspawn\n", ".SH NAME\nfastspawn \\- one process per request, fast\n", 1
    )


if __name__ == "__main__":
    PAGE.write_text(made())
