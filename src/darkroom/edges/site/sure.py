"""What cannot be taken back is asked about first: by the page's script, or on a page while it has not come."""

from typing import Annotated, Final

from fastapi import Form, Response

from darkroom.edges.site.frame import Site, Visit

YES: Final = "yes"
Sure = Annotated[str, Form(max_length=8)]
"""The answer that a form carries; the page's script puts it in after its own question."""


def ask_first(site: Site, visit: Visit, *, question: str, back: str) -> Response:
    """The question on a page of its own: its button sends the form again with the answer, `back` leads out."""
    path = visit.request.url.path
    answer = site.render(visit, "sure.html", question=question, path=path, yes=YES, back=back)
    if visit.by_script:
        # htmx without our script: the question is no part of a list.
        answer.headers["HX-Retarget"] = "body"
        answer.headers["HX-Reswap"] = "innerHTML"
    return answer
