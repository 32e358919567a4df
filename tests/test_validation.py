import math

import pytest
import torch

from gmje_plugin import validation


@pytest.mark.parametrize("value", [0, -1, 1.0, "1", True, None])
def test_check_count(value: object) -> None:
    with pytest.raises(ValueError, match="size must be an integer of at least 1, got"):
        validation.check_count("size", value)
    assert validation.check_count("size", 3) == 3


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, "1", True, None])
def test_check_positive(value: object) -> None:
    with pytest.raises(ValueError, match=r"scale must be a finite number in \(0.0, inf\], got"):
        validation.check_positive("scale", value)
    assert validation.check_positive("scale", 2) == 2.0


def test_bounds_are_open_or_closed() -> None:
    assert validation.check_number("x", 1.0, low=0.0, high=1.0) == 1.0
    with pytest.raises(ValueError, match=r"\[0.0, 1.0\)"):
        validation.check_number("x", 1.0, low=0.0, high=1.0, high_open=True)


def test_check_choice_names_the_choices() -> None:
    with pytest.raises(ValueError, match="kind must be one of a, b, got 'c'"):
        validation.check_choice("kind", "c", {"b", "a"})


@pytest.mark.parametrize(
    "value", [None, [1.0], torch.zeros(3), torch.zeros(0, 2), torch.zeros(2, 0)]
)
def test_check_embeddings(value: object) -> None:
    with pytest.raises(ValueError, match="out0 must"):
        validation.check_embeddings("out0", value)


def test_check_pair() -> None:
    rows = torch.zeros(2, 3)
    validation.check_pair(rows, rows, dim=3, min_rows=2)
    with pytest.raises(ValueError, match="out0 must have at least 3 rows, got 2"):
        validation.check_pair(rows, rows, min_rows=3)
    with pytest.raises(ValueError, match="must be on one device"):
        validation.check_pair(rows, rows.to("meta"))


def test_check_device_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"move the loss with .to\('meta'\)"):
        validation.check_device("out0", torch.zeros(1), torch.zeros(1, device="meta"))


def test_wide_dtype() -> None:
    half, wide = torch.zeros(1, dtype=torch.bfloat16), torch.zeros(1, dtype=torch.float64)
    assert validation.wide_dtype(half, half) == torch.float32
    assert validation.wide_dtype(half, wide) == torch.float64
