import pytest

from handfast.app.cli.starting import status_config
from handfast.base.refusal import BadInput


def test_the_options_become_what_the_server_takes():
    """Without an address for others, certificates name no place."""
    config = status_config(("127.0.0.1", 7481), "http://status.example.org/", 4)
    assert config.listen == ("127.0.0.1", 7481)
    assert config.site
    assert (config.site.url, config.site.shards) == ("http://status.example.org", 4)
    assert status_config(("127.0.0.1", 0), "", 1).site is None


def test_an_address_that_cannot_stand_in_a_certificate_names_the_option():
    """The message says what to write instead."""
    with pytest.raises(BadInput, match="--status-url") as caught:
        status_config(("127.0.0.1", 7481), "https://status.example.org", 1)
    assert "http://" in str(caught.value)
