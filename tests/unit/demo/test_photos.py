"""The demo's archive: photos that can be drawn again and masks that say exactly what is in them."""

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipelines.demo.photos import SyntheticPhoto, draw_archive, draw_photo
from pipelines.demo.photos.archive import CATALOGUE_COLUMNS
from pipelines.demo.photos.outfits import GARMENTS, TEMPLATES
from pipelines.demo.photos.photo import MIN_AREA_SHARE
from pipelines.demo.photos.shows import PHOTOS_PER_SHOW, show_of
from pipelines.errors import CatalogError, ContractError

LABEL_IDS = {name: 2 * place + 1 for place, name in enumerate(GARMENTS)}
SMALL = (300, 200)


@pytest.fixture(scope="module")
def sixty_photos() -> list[SyntheticPhoto]:
    return [draw_photo(seed, LABEL_IDS, SMALL) for seed in range(60)]


@pytest.fixture(scope="module")
def archive_of_three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    draw_archive(folder, 3, LABEL_IDS)
    return folder


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


class TestDrawPhoto:
    def test_same_seed_gives_the_same_pixels(self) -> None:
        first, second = draw_photo(7, LABEL_IDS), draw_photo(7, LABEL_IDS)
        assert np.array_equal(first.image, second.image)
        assert np.array_equal(first.mask, second.mask)
        assert first.garments == second.garments

    def test_another_seed_gives_another_photo(self) -> None:
        assert not np.array_equal(draw_photo(7, LABEL_IDS, SMALL).image, draw_photo(8, LABEL_IDS, SMALL).image)

    @pytest.mark.parametrize("size", [(600, 400), (300, 200), (288, 192), (400, 400)])
    def test_image_and_mask_have_the_size_asked_for(self, size: tuple[int, int]) -> None:
        photo = draw_photo(1, LABEL_IDS, size)
        assert photo.image.shape == (*size, 3)
        assert photo.mask.shape == size
        assert photo.image.dtype == photo.mask.dtype == np.uint8

    def test_mask_holds_the_ids_of_the_garments_and_nothing_else(self, sixty_photos: list[SyntheticPhoto]) -> None:
        for photo in sixty_photos:
            assert set(np.unique(photo.mask)) == {0} | {LABEL_IDS[name] for name in photo.garments}
            assert photo.garments == tuple(sorted(photo.garments))

    def test_every_garment_is_large_enough_to_be_learned(self, sixty_photos: list[SyntheticPhoto]) -> None:
        for seed, photo in enumerate(sixty_photos):
            for name in photo.garments:
                share = float((photo.mask == LABEL_IDS[name]).mean())
                assert share >= MIN_AREA_SHARE, f"seed {seed}: {name} covers {share:.2%}"

    def test_every_class_is_frequent(self, sixty_photos: list[SyntheticPhoto]) -> None:
        count = Counter(name for photo in sixty_photos for name in photo.garments)
        assert set(count) == set(GARMENTS)
        assert count["footwear"] == 60
        assert min(count.values()) >= 0.2 * 60

    def test_garments_match_the_picture(self, sixty_photos: list[SyntheticPhoto]) -> None:
        """A colour edge lies on the mask's outline: the picture changes more across it than it does elsewhere."""
        ratios = []
        for photo in sixty_photos[:20]:
            step = np.abs(np.diff(photo.image.astype(int), axis=1)).sum(axis=2)
            edge = np.diff(photo.mask.astype(int), axis=1) != 0
            ratios.append(step[edge].mean() / step[~edge].mean())
        assert min(ratios) > 2.0

    def test_figure_stays_inside_the_picture(self, sixty_photos: list[SyntheticPhoto]) -> None:
        for photo in sixty_photos:
            border = np.concatenate([photo.mask[0], photo.mask[-1], photo.mask[:, 0], photo.mask[:, -1]])
            assert not border.any()

    def test_missing_label_is_named(self) -> None:
        ids = {name: place for name, place in LABEL_IDS.items() if name != "coat"}
        with pytest.raises(ContractError, match="lacks coat"):
            draw_photo(0, ids)


def test_twenty_successive_photos_hold_every_template_once(sixty_photos: list[SyntheticPhoto]) -> None:
    expected = Counter(tuple(sorted({"footwear", *words.split()} - {"closed"})) for words in TEMPLATES)
    assert Counter(photo.garments for photo in sixty_photos[20:40]) == expected


def test_photos_of_a_show_share_it() -> None:
    shows = [show_of(seed).collection for seed in range(3 * PHOTOS_PER_SHOW)]
    assert len(set(shows[:PHOTOS_PER_SHOW])) == 1
    assert len(set(shows)) == 3


class TestDrawArchive:
    def test_each_photo_has_a_mask_of_its_size_with_known_ids(self, archive_of_three: Path) -> None:
        for name in ("look-0001", "look-0002", "look-0003"):
            with Image.open(archive_of_three / "photos" / f"{name}.jpg") as photo:
                assert photo.size == (400, 600)
            with Image.open(archive_of_three / "masks" / f"{name}.png") as mask:
                assert (mask.mode, mask.size) == ("L", (400, 600))
                assert set(np.unique(np.array(mask))) <= {0, *LABEL_IDS.values()}

    def test_catalogue_has_the_columns_in_order(self, archive_of_three: Path) -> None:
        catalogue = pd.read_csv(archive_of_three / "catalogue.csv", dtype=str)
        assert tuple(catalogue.columns) == CATALOGUE_COLUMNS
        assert catalogue.notna().all(axis=None)
        assert set(catalogue["season"]) <= {"Spring/Summer", "Autumn/Winter"}
        assert catalogue["year"].astype(int).between(1985, 2024).all()

    def test_catalogue_has_one_row_per_garment(self, archive_of_three: Path) -> None:
        catalogue = pd.read_csv(archive_of_three / "catalogue.csv", dtype=str)
        for index, name in enumerate(("look-0001", "look-0002", "look-0003")):
            labels = catalogue.loc[catalogue["id_file"] == name, "typology.sub"]
            assert tuple(labels) == draw_photo(index, LABEL_IDS).garments

    def test_same_arguments_give_the_same_bytes(self, archive_of_three: Path, tmp_path: Path) -> None:
        draw_archive(tmp_path, 3, LABEL_IDS)
        once = digests(tmp_path)
        draw_archive(tmp_path, 3, LABEL_IDS)
        assert once == digests(tmp_path) == digests(archive_of_three)

    def test_growing_in_steps_gives_the_same_archive(self, archive_of_three: Path, tmp_path: Path) -> None:
        draw_archive(tmp_path, 1, LABEL_IDS, first=2)
        draw_archive(tmp_path, 2, LABEL_IDS)
        assert digests(tmp_path) == digests(archive_of_three)

    def test_another_seed_gives_other_photos(self, archive_of_three: Path, tmp_path: Path) -> None:
        draw_archive(tmp_path, 1, LABEL_IDS, seed=1)
        photo = Path("photos/look-0001.jpg")
        assert (tmp_path / photo).read_bytes() != (archive_of_three / photo).read_bytes()

    def test_foreign_catalogue_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "catalogue.csv").write_text("id,label\n1,coat\n", encoding="utf-8")
        with pytest.raises(CatalogError, match="columns"):
            draw_archive(tmp_path, 1, LABEL_IDS)
