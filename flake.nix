{
  description = "The CI host of Co-op Cloud recipes: a blank machine plus one key";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
    sops-nix = {
      url = "github:Mic92/sops-nix";
      inputs.nixpkgs.follows = "nixpkgs";
    };
  };

  outputs = inputs: {
    nixosModules.default = ./nix/modules;
    nixosConfigurations = import ./nix/hosts inputs;
    packages = import ./nix/packages inputs;
    checks = import ./nix/checks inputs;
    devShells = import ./nix/shell.nix inputs;
    formatter = import ./nix/formatter.nix inputs;
  };
}
