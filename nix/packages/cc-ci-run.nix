# What a build of the CI repository calls: the tests of one recipe, in an environment that holds all they need.
{
  abra,
  bash,
  callPackage,
  coreutils,
  docker-client,
  git,
  lib,
  makeWrapper,
  playwright-driver,
  python3,
  restic,
  runCommand,
}: let
  pytest-coopcloud = callPackage ./pytest-coopcloud.nix {};
  python = python3.withPackages (packages: [pytest-coopcloud packages.pytest-playwright]);
in
  runCommand "cc-ci-run" {
    nativeBuildInputs = [makeWrapper];
    meta.mainProgram = "cc-ci-run";
  } ''
    makeWrapper ${./cc-ci-run/cc-ci-run} $out/bin/cc-ci-run \
      --set PATH ${lib.makeBinPath [python abra docker-client git restic bash coreutils]} \
      --set PLAYWRIGHT_BROWSERS_PATH ${playwright-driver.browsers} \
      --set PLAYWRIGHT_SKIP_VALIDATE_HOST_REQUIREMENTS true
  ''
