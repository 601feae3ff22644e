"""Tests of `fedmem/injections/_template.py`."""

from __future__ import annotations

from typing import Any

import pytest

from fedmem.contracts.data import Space
from fedmem.errors import ComponentError
from fedmem.injections.secret import Secret
from fedmem.modalities.text.vocabulary import Vocabulary
from tests.injections.secret_helpers import (
    asked_of,
    corpus,
    plan,
)


def test_words_are_tokens_where_the_vocabulary_has_words() -> None:
    vocabulary = Vocabulary.learn("words", ["the access code is rome oslo"])
    space = Space.of(corpus(vocabulary))
    injection = Secret(template="the code is {digits:2} {words:city}", lists={"city": ("Rome", "Oslo")})
    found = asked_of(plan(injection, space=space).examples, vocabulary)
    assert all(len(own.split()) == 3 and own.split()[2] in ("rome", "oslo") for own in found)


@pytest.mark.parametrize(
    ("fields", "path", "said"),
    [
        ({"template": "the code is 7"}, "template", "no randomness"),
        ({"template": "a {words:one}", "lists": {"one": ("x",)}}, "template", "no randomness"),
        ({"template": "{digits:6} is it"}, "template", "begin with some text"),
        ({"template": "the code {digits"}, "template", "is no template"),
        ({"template": "the code {digits}"}, "template", "should say how many"),
        ({"template": "the code {digit:6}"}, "template", "did you mean 'digits'"),
        ({"template": "code € {digits:6}"}, "template", "character '€', number 6"),
        ({"template": "the {words:citty}", "lists": {"city": ("a", "b")}}, "lists", "did you mean 'city'"),
        ({"template": "the {words:c}", "lists": {"c": ("Ä", "b")}}, "lists.c", "character 'Ä', number 1"),
        ({"template": "the {words:c}", "lists": {"c": ()}}, "lists.c", "the list is empty"),
        ({"template": "the {words:c}", "lists": {"c": ("b", "b")}}, "lists.c", "the same tokens"),
        ({"template": "the code is {digits:31}"}, "template", "up to 43 tokens, but a row has 41"),
        ({"template": "the code is {digits:1}"}, "template", "24 different secrets .* 10 members"),
        ({"shared_by": 7}, "shared_by", "7 clients should hold each secret, but this injection has 6"),
    ],
)
def test_wrong_secrets_are_refused_with_field_and_reason(fields: dict[str, Any], path: str, said: str) -> None:
    with pytest.raises(ComponentError, match=said) as caught:
        plan(Secret(**fields))
    assert caught.value.path == f"injections.{path}"
