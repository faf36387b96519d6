"""dlrun's sweeper and launcher as Hydra finds them."""

import pytest
from hydra.core.plugins import Plugins
from hydra.utils import get_class

from dlrun.config.sweep import OWN
from dlrun.sweeps.plugin import Request, plugins_for


@pytest.mark.parametrize("name", ["Sweeper", "Launcher"])
def test_hydra_finds_the_plugins_by_their_names_and_they_serve_the_request(name: str):
    request = Request({}, view=None)
    with plugins_for(request):
        known = Plugins.instance().class_name_to_class[f"{OWN}{name}"]
        assert get_class(f"{known.__module__}.{known.__qualname__}") is known  # as Hydra 1.3.2 looks for them
        assert known(jobs=1).request is request
        with plugins_for(other := Request({}, view=None)):
            assert known().request is other
        assert known().request is request
