# What the flake builds, one derivation a file.
{nixpkgs, ...}: let
  pkgs = nixpkgs.legacyPackages.x86_64-linux;
in {
  x86_64-linux = rec {
    pytest-coopcloud = pkgs.callPackage ./pytest-coopcloud.nix {};
    cc-ci-run = pkgs.callPackage ./cc-ci-run.nix {};
    bridge-image = pkgs.callPackage ./bridge-image.nix {};
    dashboard-image = pkgs.callPackage ./dashboard-image.nix {};
    default = pytest-coopcloud;
  };
}
