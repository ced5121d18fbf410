"""The setting of how much disk a log drain's buffer may use."""

import pytest

from coordinator.errors import StartError
from coordinator.settings import read_settings


def test_sixty_four_mib_unless_said_otherwise() -> None:
    assert read_settings([], {}).log_buffer_bytes == 64 * 2**20
    assert read_settings([], {"ARGOSY_LOG_BUFFER_MIB": "1"}).log_buffer_bytes == 2**20
    assert read_settings(["--log-buffer-mib", "2"], {"ARGOSY_LOG_BUFFER_MIB": "1"}).log_buffer_bytes == 2 * 2**20


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "many", "99999999999"])
def test_what_is_no_size_is_refused_by_name(text: str) -> None:
    with pytest.raises(StartError, match="ARGOSY_LOG_BUFFER_MIB"):
        read_settings([], {"ARGOSY_LOG_BUFFER_MIB": text})
