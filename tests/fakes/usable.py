"""A WebUI that is to be as usable after a fault as it was before."""

from __future__ import annotations

import json

from fakes.running import Snapshot, plainly, run, same_pictures

FOREIGN_WORDS = ("Traceback", "Error:", "NoneType", "Exception", "object at 0x")


class Usable:
    """The plain job before, and the model; `check` after the fault."""

    def __init__(self, webui):
        self.webui, self.before, self.state = webui, plainly(webui), Snapshot.of(webui)

    def check(self, outcome, *words: str) -> None:
        """No picture, a message of ours with these words, and nothing left behind."""
        self.check_told(outcome)
        assert all(word in outcome.error for word in words), outcome.error
        assert not any(word in outcome.error for word in FOREIGN_WORDS), outcome.error
        self.check_webui()

    def check_told(self, outcome) -> None:
        """No picture, and why, once: on the page (comments and the first infotext), and in the API's info."""
        assert outcome.pictures == [] and not self.webui.errors
        assert outcome.error, "no message"
        page = "\n".join([outcome.processed.comments, *outcome.processed.infotexts])
        assert (
            page.count(outcome.error) == page.count("What to do") == 1 and outcome.processed.comments.count("\n") == 1
        )
        told = json.loads(outcome.processed.js())
        assert told["extra_generation_params"]["layerdiffusion_error"] == outcome.error
        assert str(told).count("What to do") == 1 and "layerdiffusion_note" not in str(told)

    def check_webui(self) -> None:
        """The model is what it was, and so is the plain job."""
        self.state.check(self.webui)
        after = run(self.webui, steps=1)
        assert same_pictures(after, self.before) and not after.parameters and not after.p.comments
