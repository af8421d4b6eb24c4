# What work on this repository needs beyond `./dev`.
{nixpkgs, ...}: let
  pkgs = nixpkgs.legacyPackages.x86_64-linux;
in {
  x86_64-linux.default = pkgs.mkShell {
    packages = [pkgs.age pkgs.alejandra pkgs.deadnix pkgs.docker-client pkgs.git pkgs.python3 pkgs.restic pkgs.shellcheck pkgs.sops pkgs.statix];
  };
}
