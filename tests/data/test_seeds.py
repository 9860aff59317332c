"""The purposes of seeds share no numbers, and keep those with which runs were made."""

import itertools

from cbalign.data.seeds import VIEWS, Purpose, ViewPurpose


def test_numbers_stay():
    assert {purpose.name: purpose.value for purpose in Purpose} == {
        "EPOCH_ORDER": 1,
        "CAPTION": 2,
        "FIRST_VIEW": 16,
        "SECOND_VIEW": 32,
        "SECOND_IMAGE": 48,
        "SECOND_IMAGE_SECOND_VIEW": 64,
        "MIXTURE_PASS": 4096,
    }
    assert {purpose.name: purpose.value for purpose in ViewPurpose} == {"CROP": 1, "FLIP": 2, "DISTORT": 3, "COLOR": 4}


def test_no_two_purposes_share_a_number():
    views = [purpose for shown in VIEWS for purpose in shown.values()]
    used = [{purpose + within for within in (0, *ViewPurpose)} for purpose in views]
    used += [{Purpose.EPOCH_ORDER}, {Purpose.CAPTION}, set(range(Purpose.MIXTURE_PASS, Purpose.MIXTURE_PASS + 1000))]
    assert not any(one & other for one, other in itertools.combinations(used, 2))
    assert len(used) == len(Purpose)
