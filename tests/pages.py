"""The code blocks of README.md and docs/: what tests run, so that a reader can."""

import re

from tests.live_server import ROOT

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page: str, language: str) -> list[str]:
    """The blocks of a language in order; page: a path within the repository."""
    return [code for name, code in BLOCK.findall((ROOT / page).read_text("utf-8")) if name == language]


def commands(page: str, word: str) -> list[str]:
    """The commands of a page's shell blocks that hold a word, continued lines joined, comments dropped."""
    lines = "\n".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    return [re.sub(r"\s+#.*", "", line) for line in lines if word in line]
