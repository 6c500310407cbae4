"""Words as they are typed, ordered and written."""

import tomllib

from labelgen.prompts import Sentence
from pipeline.explorer.words import SAVED, Versions, Words

STORED = Words((("sky",), ("car", "van")), ("a {}.", "the {}."))


def test_what_is_left_out_is_as_before() -> None:
    assert Words.read({"classes": {"sky": [" cloud ", "cloud"]}}, ("sky", "car"), STORED) == Words(
        (("cloud",), ("car", "van")), STORED.templates
    )


def test_known_words_come_in_the_order_of_the_cache_and_others_last() -> None:
    said = [Sentence(0, "sky", "the {}."), Sentence(1, "van", "the {}."), Sentence(1, "car", "the {}.")]
    words = Words((("sky",), ("bus", "car", "van")), ("a {}.", "the {}."))
    assert words.in_order_of(said) == Words((("sky",), ("van", "car", "bus")), ("the {}.", "a {}."))
    assert words.in_order_of([]) == words


def test_a_class_of_any_name_is_written_so_that_toml_reads_it() -> None:
    names = ("sky", 'a "b" \\ \x7f \n é')
    assert tomllib.loads(STORED.as_toml(names)) == {"sky": ["sky"], names[1]: ["car", "van"]}


def test_the_same_words_are_one_version_and_the_oldest_are_forgotten() -> None:
    versions = Versions(STORED, most=3)
    others = [STORED.asking(word) for word in ("a", "b", "c")]
    assert versions.add(STORED) == SAVED
    assert [versions.add(words) for words in (others[0], others[1], others[0], others[2])] == ["w1", "w2", "w1", "w3"]
    assert versions.add(others[0]) == "w4"
    assert (versions[SAVED], versions["w3"]) == (STORED, others[2])
