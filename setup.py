"""What pyproject.toml cannot say: conf/ stands at the top of the repository, and in the wheel inside the package."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConf(build_py):
    """Copies conf/ beside the modules; an editable install reads it where it stands."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "dlrun", "conf")
            shutil.rmtree(target, ignore_errors=True)  # build/ may hold files of an earlier build
            shutil.copytree("conf", target)


setup(cmdclass={"build_py": BuildWithConf})
