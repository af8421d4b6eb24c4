# The image of the dashboard: Python, its libraries and its code, and no shell.
{
  callPackage,
  cacert,
  dockerTools,
  lib,
  python3,
}: let
  pytest-coopcloud = callPackage ./pytest-coopcloud.nix {};
  python = python3.withPackages (packages: [
    pytest-coopcloud
    packages.fastapi
    packages.httpx
    packages.prometheus-client
    packages.pydantic
    packages.pydantic-settings
    packages.uvicorn
    packages.jinja2
  ]);
  code = lib.fileset.toSource {
    root = ../..;
    fileset = ../../dashboard;
  };
in
  dockerTools.buildLayeredImage {
    name = "coopcloud-ci/dashboard";
    contents = [python cacert];
    extraCommands = "mkdir -m 1777 tmp";
    config = {
      User = "1000:1000";
      Cmd = ["${python}/bin/python" "-m" "dashboard"];
      Env = ["PATH=${python}/bin" "PYTHONPATH=${code}" "PYTHONUNBUFFERED=1" "SSL_CERT_FILE=${cacert}/etc/ssl/certs/ca-bundle.crt"];
    };
  }
