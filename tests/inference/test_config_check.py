"""Settings that name entries of tables."""

import pytest

from detector.config.file import load_config
from detector.inference.config_check import TABLES, check_config, choices
from detector.utils.errors import InputError


@pytest.mark.parametrize("path", TABLES)
def test_the_default_is_in_the_table_and_another_name_is_an_error(path, tiny_config):
    check_config(load_config(tiny_config))
    with pytest.raises(InputError, match=f"^{path}: no 'focul'; "):
        check_config(load_config(tiny_config, [f"{path}=focul"]))


def test_names_are_those_of_the_tables():
    assert "focal" in choices()["loss.classification"]


def test_a_list_of_transforms_names_no_preset(tiny_config):
    check_config(load_config(tiny_config, ["augment.transforms=[{name: HorizontalFlip}]"]))
