"""Who may call: whoever knows a name and password of the WebUI's `--api-auth`; everybody where it has none."""

from __future__ import annotations

import secrets
from typing import Any

from fastapi import Depends, HTTPException
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from ..host.modules import host_module

basic = HTTPBasic()


def credentials() -> dict[str, str]:
    """Names and passwords of `--api-auth name:password,name:password`; a password may hold colons."""
    option: str = getattr(host_module("shared").cmd_opts, "api_auth", None) or ""
    pairs = (pair.partition(":") for pair in option.split(","))
    return {name: password for name, colon, password in pairs if colon}


def check(given: HTTPBasicCredentials = Depends(basic)) -> None:  # noqa: B008  FastAPI's way of asking for them
    """HTTPException 401 for a name or password that is not the WebUI's."""
    right = credentials().get(given.username)
    same = secrets.compare_digest((right or "").encode(), given.password.encode())
    if right is None or not same:
        raise HTTPException(401, "wrong name or password", headers={"WWW-Authenticate": "Basic"})


def guards() -> list[Any]:
    """The dependencies of all routes."""
    return [Depends(check)] if credentials() else []
