# The machines, by name.
{
  nixpkgs,
  sops-nix,
  ...
}: let
  host = folder:
    nixpkgs.lib.nixosSystem {
      system = "x86_64-linux";
      modules = [sops-nix.nixosModules.sops ../modules folder];
    };
  hetzner = host ./cc-ci-hetzner;
in {
  # The live host, by its own name and by the name that the machine carries.
  cc-ci = hetzner;
  cc-ci-hetzner = hetzner;
  # The older virtual machine.
  cc-ci-incus = host ./cc-ci;
}
