# The plugin.
{
  lib,
  python3,
}:
python3.pkgs.buildPythonPackage {
  pname = "pytest-coopcloud";
  version = "0.1.0";
  pyproject = true;
  src = lib.fileset.toSource {
    root = ../..;
    fileset = lib.fileset.unions [../../pyproject.toml ../../README.md ../../LICENSE ../../pytest_coopcloud];
  };
  build-system = [python3.pkgs.hatchling];
  dependencies = [
    python3.pkgs.docker
    python3.pkgs.jinja2
    python3.pkgs.pluggy
    python3.pkgs.pydantic
    python3.pkgs.pytest
    python3.pkgs.python-dotenv
    python3.pkgs.pyyaml
    python3.pkgs.requests
    python3.pkgs.trustme
  ];
  pythonImportsCheck = ["pytest_coopcloud"];
  meta.description = "Test a Co-op Cloud recipe on a real Docker Swarm";
}
