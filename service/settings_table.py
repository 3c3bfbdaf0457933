"""Settings -> the table of docs/settings.md: `python -m service.settings_table > docs/settings.md`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from service.settings import PREFIX, Settings

HEAD = """\
# Settings

Environment variables, read once at the start; an unknown one with this prefix stops it.
`python -m service.settings_table` prints this page.

| variable | values | default | what it does |
|---|---|---|---|
"""
BOUNDS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}


def table() -> str:
    """Every variable with its values, its default and what it does, as Markdown."""
    rows = (
        f"| `{PREFIX}{name.upper()}` | {_values(field)} | {_default(field.default)} | {field.description} |\n"
        for name, field in Settings.model_fields.items()
    )
    return HEAD + "".join(rows)


def _values(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(field.annotation))
    bounds = [
        f"{sign} {getattr(constraint, name)}"
        for constraint in field.metadata
        for name, sign in BOUNDS.items()
        if hasattr(constraint, name)
    ]
    plain = {Path: "path", str: "text", SecretStr: "secret"}
    kinds = [plain[kind] for kind in (field.annotation, *get_args(field.annotation)) if kind in plain]
    return ", ".join(bounds) or next(iter(kinds), "list")


def _default(value: Any) -> str:
    unset = value is None or value == () or isinstance(value, SecretStr)
    return "unset" if unset else f"`{value}`"


if __name__ == "__main__":
    print(table(), end="")
