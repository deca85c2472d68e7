"""Browser tabs that a file's tests use one after the other: a new tab takes three times as long as a new page in it."""

from __future__ import annotations

from typing import Any


class Tabs:
    """Tabs of one browser context: lent, and given back with nothing of the test in them."""

    def __init__(self, context: Any):
        self.context = context
        self.free: list[Any] = []
        self.lent: list[Any] = []

    def hurry(self, times: int) -> None:
        """Let the timers of all pages run so many times faster."""
        for name in ("setTimeout", "setInterval"):
            quick = f"(call, period) => usual(call, period / {times})"
            self.context.add_init_script(f"(() => {{ const usual = {name}; {name} = {quick}; }})()")

    def lend(self) -> Any:
        """A tab with an empty page, for one test."""
        tab = self.free.pop() if self.free else self.context.new_page()
        self.lent.append(tab)
        return tab

    def give_back(self) -> None:
        """The end of a test: forgets what its page kept and how its requests were answered."""
        for tab in self.lent:
            tab.evaluate("sessionStorage.clear(), localStorage.clear()")
            tab.goto("about:blank")
            tab.unroute_all()
            self.free.append(tab)
        self.lent.clear()
