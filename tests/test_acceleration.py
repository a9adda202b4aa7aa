import pytest
import torch

from src.acceleration import choose_device
from src.errors import InputError
from tests.test_engine import CPU


def test_choose_device_takes_what_is_there():
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["cuda:77", "gpu", "", "tpu", "cuda:x"])
def test_choose_device_refuses_what_is_not_there(name):
    with pytest.raises(InputError, match="--device"):
        choose_device(name)
