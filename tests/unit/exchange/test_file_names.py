"""Names of exported files, from whatever an object of a bucket may be called."""

import random
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.exchange.file_names import file_stems, portable
from pipelines.photos.decode import sha256_hex


def named(*objects: str) -> list[str]:
    return file_stems([f"gs://archive/{name}" for name in objects], [sha256_hex(name.encode()) for name in objects])


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("photos/look 7.jpg", "look_7"),
        ('a<b>c:d"e|f?g*h\\i.png', "a_b_c_d_e_f_g_h_i"),
        ("a#b%20c[1]&'x'.png", "a_b_20c_1___x_"),
        ("line\nbreak\t.png", "line_break_"),
        ("-rf.png", "_rf"),
        ("look...jpg", "look__"),
        (".hidden.png", "_hidden"),
        ("CON.jpg", "_CON"),
        ("com1.png", "_com1"),
        ("lpt¹.png", "_lpt¹"),
        ("aux.tar.png", "aux_tar"),
        ("e\u0301te\u0301.png", "\u00e9t\u00e9"),
        ("日本語.jpg", "日本語"),
        ("right\u202eto\u200bleft.png", "right_to_left"),
        (" .png", "_"),
    ],
)
def test_a_name_is_portable(name: str, wanted: str) -> None:
    assert named(name) == [wanted]


def test_long_names_are_shortened_between_characters() -> None:
    first, second = named(f"{'漢' * 90}a.jpg", f"{'漢' * 90}b.jpg")
    assert first != second
    for name in (first, second):
        assert len(name.encode()) <= 190
        assert name.startswith("漢" * 40)
    assert len(portable("é" * 200).encode()) == 190


@pytest.mark.parametrize(
    "twins",
    [("a/look.png", "b/look.png"), ("Look.png", "look.jpg"), ("é.png", "e\u0301.png"), ("a?.png", "a*.png"),
     ("STRASSE.png", "straße.png"), ("a.b.png", "a_b.png")],
)  # fmt: skip
def test_what_would_be_one_file_is_told_apart(twins: tuple[str, str]) -> None:
    first, second = named(*twins)
    assert first.casefold() != second.casefold()
    assert all(name.endswith(sha256_hex(twin.encode())[:12]) for name, twin in zip((first, second), twins, strict=True))


def test_a_name_that_looks_like_a_name_with_a_hash_is_kept_apart_too() -> None:
    ending = sha256_hex(b"a/look.png")[:12]
    names = named("a/look.png", "b/look.png", f"LOOK-{ending}.png")
    assert len({name.casefold() for name in names}) == 3


def test_the_same_bytes_under_one_name_are_still_two_files() -> None:
    names = file_stems(["gs://a/look.png", "gs://b/look.png", "gs://c/look.png"], ["f" * 64] * 3)
    assert len(set(names)) == 3


@given(st.lists(st.text(min_size=1, max_size=90), min_size=1, max_size=8, unique=True), st.randoms())
def test_any_names_are_files_of_their_own_whatever_their_order(objects: list[str], chance: random.Random) -> None:
    objects = [text.encode(errors="ignore").decode() for text in objects]
    objects = list(dict.fromkeys(objects))
    names = dict(zip(objects, named(*objects), strict=True))
    keys = {unicodedata.normalize("NFC", name).casefold() for name in names.values()}
    assert len(keys) == len(objects)
    for name in names.values():
        assert 0 < len(name.encode()) <= 200
        assert name == unicodedata.normalize("NFC", name)
        assert not set(name) & set('<>:"/\\|?*. \n\t\0')
    mixed = chance.sample(objects, len(objects))
    assert dict(zip(mixed, named(*mixed), strict=True)) == names
