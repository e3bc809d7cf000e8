"""The wheel carries the workflow inside the package, where the command looks for it."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
PROJECT = "dbksvd/_project"  # dbksvd/command/project.py
CARRIED = ("workflow", "scripts", "profiles", "envs", "experiments", "config.yaml")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


class BuildWithWorkflow(build_py):
    """Copies the folders of the workflow beside the modules."""

    def run(self) -> None:
        """Build as usual, then copy."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / PROJECT
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for name in CARRIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, target / name, ignore=LEFT_OUT)
            else:
                shutil.copy(source, target / name)


setup(cmdclass={"build_py": BuildWithWorkflow})
