"""The glossary: terms that are not there, and words that it does not take."""

from collections.abc import Callable

import pytest

from .conftest import Answer


@pytest.mark.parametrize(
    ("words", "needles"),
    [
        (["show", "xavyer"], ["the glossary has no term 'xavyer'", "Did you mean 'xavier'?"]),
        (["run", "everything"], ["the glossary has no term 'everything'", "`dlrun glossary` lists them"]),
        (["show"], ["dlrun glossary show needs a TERM"]),
        (["run"], ["dlrun glossary run needs a TERM"]),
        (["list", "adam"], ["takes no term, got 'adam'", "dlrun glossary show TERM"]),
        (["adam"], ["does list, show TERM or run TERM, got 'adam'", "dlrun glossary show 'adam'"]),
        (["shwo", "adam"], ["got 'shwo'", "Did you mean 'show'?"]),
        (["show", "adam", "lang=de"], ["lang must be one of en, es, got 'de'"]),
        (["show", "adam", "lang=en", "lang=es"], ["lang is given twice"]),
        (["run", "all", "jobs=0"], ["jobs must be a whole number >= 1, got '0'"]),
        (["run", "adam", "jobs=2"], ["jobs is how many terms are measured at a time"]),
        (["run", "adam", "--fast"], ["unknown option '--fast' of dlrun glossary"]),
    ],
)
def test_refused(dlrun: Callable[..., Answer], words: list[str], needles: list[str]):
    dlrun("glossary", *words).must_refuse(*needles)


def test_a_folder_of_conf_that_holds_no_choices_is_no_group(dlrun: Callable[..., Answer]):
    dlrun("train", "glossary=adam").must_refuse("glossary")
    dlrun("list", "glossary").must_refuse("there is no group 'glossary'")
