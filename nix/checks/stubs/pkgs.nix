# Stand-ins for the packages that we name: a name that is not here fails the check.
{
  lib,
  root,
}: let
  drv = name: attributes:
    {
      type = "derivation";
      inherit name;
      outPath = "${root}/${name}";
    }
    // attributes;
  names = ["abra" "age" "alejandra" "bash" "cacert" "coreutils" "deadnix" "docker-client" "drone-runner-exec" "git" "makeWrapper" "restic" "shellcheck" "sops" "statix"];
  libraries = ["docker" "fastapi" "hatchling" "httpx" "jinja2" "pluggy" "prometheus-client" "pydantic" "pydantic-settings" "pytest" "pytest-playwright" "python-dotenv" "pyyaml" "requests" "trustme" "uvicorn"];
  # All arguments are looked at: a misspelt name in one of them is found.
  whole = name: arguments: builtins.deepSeq arguments (drv name {inherit arguments;});
  pkgs =
    lib.genAttrs names (name: drv name {})
    // {
      inherit lib pkgs;
      callPackage = file: overrides: let
        package = import file;
        wanted = builtins.functionArgs package;
        missing = builtins.filter (name: !(pkgs ? ${name} || overrides ? ${name})) (builtins.attrNames wanted);
      in
        if missing != []
        then throw "${toString file} wants ${builtins.toJSON missing}, which there is not"
        else package (builtins.intersectAttrs wanted (pkgs // overrides));
      dockerTools.buildLayeredImage = arguments:
        whole "image" arguments
        // {
          imageName = arguments.name;
          imageTag = "stand-in";
        };
      mkShell = whole "shell";
      playwright-driver.browsers = drv "browsers" {};
      python3 = drv "python3" {
        pkgs = lib.genAttrs libraries (name: drv name {}) // {buildPythonPackage = arguments: whole arguments.pname arguments;};
        withPackages = select: whole "python3-env" {packages = select pkgs.python3.pkgs;};
      };
      runCommand = name: arguments: script: whole name {inherit arguments script;};
      # A path that holds the text itself: nothing is written, and the check can read it.
      writeText = name: text: drv name {outPath = "/text/${text}";};
      testers.runNixOSTest = test:
        drv test.name {
          inherit (test) name testScript nodes;
        };
    };
in
  pkgs
