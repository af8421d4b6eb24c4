# The image of the bridge: Python, its libraries and its code, and no shell.
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
  ]);
  code = lib.fileset.toSource {
    root = ../..;
    fileset = ../../bridge;
  };
in
  dockerTools.buildLayeredImage {
    name = "coopcloud-ci/bridge";
    contents = [python cacert];
    extraCommands = "mkdir -m 1777 tmp";
    config = {
      User = "1000:1000";
      Cmd = ["${python}/bin/python" "-m" "bridge"];
      Env = ["PATH=${python}/bin" "PYTHONPATH=${code}" "PYTHONUNBUFFERED=1" "SSL_CERT_FILE=${cacert}/etc/ssl/certs/ca-bundle.crt"];
    };
  }
