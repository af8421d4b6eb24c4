# The whole flake with stand-in inputs, as data for nix/check.
{
  root,
  modules ? [],
}: let
  lib = import ./lib.nix;
  pkgs = import ./pkgs.nix {inherit lib root;};
  system = parts:
    lib.evalModules {
      modules = [./options.nix] ++ parts;
      specialArgs = {inherit pkgs;};
    };
  nixpkgs = {
    lib =
      lib
      // {
        nixosSystem = {
          system,
          modules,
        }:
          builtins.seq system (evaluate modules);
      };
    legacyPackages.x86_64-linux = pkgs;
  };
  evaluate = system;
  sops-nix.nixosModules.sops = {};
  flake = import ../../../flake.nix;
  outputs = flake.outputs {
    inherit nixpkgs sops-nix;
    self = outputs;
  };
  machine = evaluated: let
    inherit (evaluated) config;
  in {
    inherit (config) warnings sops;
    failures = map (one: one.message) (builtins.filter (one: !one.assertion) config.assertions);
    units = {inherit (config.systemd) services slices targets timers paths;};
    inherit (config.coopcloud-ci.reconcile) programs;
    # Forced, so that each value is checked.
    rest = builtins.deepSeq [config.users config.environment config.networking config.virtualisation config.boot config.fileSystems config.services config.systemd.tmpfiles config.time] true;
  };
  build = package: {inherit (package) name outPath;};
in {
  inputs = builtins.attrNames flake.inputs;
  outputs = builtins.attrNames outputs;
  hosts = builtins.mapAttrs (_: machine) outputs.nixosConfigurations;
  packages = builtins.mapAttrs (_: build) outputs.packages.x86_64-linux;
  checks =
    builtins.mapAttrs (_: check: {
      inherit (check) name testScript;
      machine = machine (evaluate [check.nodes.machine]);
    })
    outputs.checks.x86_64-linux;
  shell = build outputs.devShells.x86_64-linux.default;
  formatter = build outputs.formatter.x86_64-linux;
  extra = machine (evaluate ([outputs.nixosModules.default] ++ modules));
}
