# As much of nixpkgs' `lib` as our modules use, written for the check: option trees, priorities, conditions, types that
# look at their values. Stricter than the original in one thing: an option without a description is an error.
let
  inherit (builtins) all attrNames attrValues concatLists concatMap elem filter foldl' head isAttrs isBool isFunction isInt isList isPath isString length listToAttrs map mapAttrs match stringLength substring toString;

  show = path: lib.concatStringsSep "." path;
  isKind = kind: value: isAttrs value && value._type or "" == kind;

  # mkIf and mkMerge go down into the attributes: which attributes there are must not depend on a condition.
  pushDown = value:
    if isKind "if" value
    then map (mapAttrs (_: lib.mkIf value.condition)) (pushDown value.content)
    else if isKind "merge" value
    then concatMap pushDown value.contents
    else [value];

  # A definition of one option, with conditions resolved: a list of { priority, value }.
  discharge = value:
    if isKind "if" value
    then
      if value.condition
      then discharge value.content
      else []
    else if isKind "merge" value
    then concatMap discharge value.contents
    else if isKind "override" value
    then map (one: one // {inherit (value) priority;}) (discharge value.content)
    else [
      {
        priority = 100;
        inherit value;
      }
    ];

  strongest = found: let
    priority =
      foldl' (low: one:
        if one.priority < low
        then one.priority
        else low)
      9999
      found;
  in
    map (one: one.value) (filter (one: one.priority == priority) found);

  named = name: concatMap (set: lib.optional (set ? ${name}) set.${name});

  evalTree = path: options: definitions: let
    sets = concatMap pushDown definitions;
    unknown = filter (name: !(options ? ${name})) (concatMap attrNames sets);
  in
    if unknown != []
    then throw "the option `${show (path ++ [(head unknown)])}` does not exist"
    else evalKnown path options sets;

  evalKnown = path: options: sets:
    mapAttrs (name: option:
      if isKind "option" option
      then evalOption (path ++ [name]) option (named name sets)
      else evalTree (path ++ [name]) option (named name sets))
    options;

  evalOption = path: option: definitions: let
    found = strongest (concatMap discharge definitions);
    value =
      if found != []
      then option.type.merge path found
      else if option ? default
      then option.type.merge path [option.default]
      else throw "the option `${show path}` has no value";
  in
    if !(option ? description) || option.description == ""
    then throw "the option `${show path}` has no description"
    else value;

  # Options of several modules in one tree.
  join = left: right:
    left
    // mapAttrs (name: value:
      if left ? ${name} && !(isKind "option" value) && !(isKind "option" left.${name})
      then join left.${name} value
      else if left ? ${name}
      then throw "the option `${name}` is declared twice"
      else value)
    right;

  collect = arguments: module: let
    loaded =
      if isPath module || isString module
      then import module
      else module;
    body =
      if isFunction loaded
      then
        loaded (
          if builtins.functionArgs loaded == {}
          then arguments
          else builtins.intersectAttrs (builtins.functionArgs loaded) arguments
        )
      else loaded;
    plain = !(body ? config || body ? options);
  in
    concatMap (collect arguments) (body.imports or [])
    ++ [
      {
        options = body.options or {};
        config =
          if plain
          then removeAttrs body ["imports"]
          else body.config or {};
      }
    ];

  mk = name: check: {
    inherit name check;
    merge = path: values:
      if !all check values
      then throw "the option `${show path}` wants ${name}, not ${builtins.toJSON (head (filter (value: !check value) values))}"
      else if length values > 1 && !all (value: value == head values) values
      then throw "the option `${show path}` is set to several values"
      else head values;
  };

  types = {
    bool = mk "a boolean" isBool;
    str = mk "a string" isString;
    path = mk "an absolute path" (value: isPath value || (isString value && substring 0 1 value == "/"));
    package = mk "a package" (value: isAttrs value && value.type or "" == "derivation");
    port = types.ints.between 0 65535;
    any = mk "anything" (_: true);
    enum = values: mk "one of ${builtins.toJSON values}" (value: elem value values);
    strMatching = pattern: mk "a string like ${pattern}" (value: isString value && match pattern value != null);
    ints = {
      positive = mk "a positive number" (value: isInt value && value > 0);
      between = low: high: mk "a number from ${toString low} to ${toString high}" (value: isInt value && value >= low && value <= high);
    };
    nullOr = inner: {
      name = "null or ${inner.name}";
      check = value: value == null || inner.check value;
      merge = path: values:
        if all (value: value == null) values
        then null
        else inner.merge path values;
    };
    listOf = inner: {
      name = "a list of ${inner.name}";
      check = isList;
      merge = path: values:
        if all isList values
        then map (value: inner.merge path [value]) (concatLists values)
        else throw "the option `${show path}` wants a list";
    };
    attrsOf = inner: {
      name = "a set of ${inner.name}";
      check = isAttrs;
      merge = path: values: let
        sets = concatMap pushDown values;
        names = attrNames (foldl' (left: right: left // right) {} sets);
        definitions = name: strongest (concatMap discharge (named name sets));
      in
        if !all isAttrs sets
        then throw "the option `${show path}` wants a set"
        else
          listToAttrs (map (name: {
            inherit name;
            value = inner.merge (path ++ [name]) (definitions name);
          }) (filter (name: definitions name != []) names));
    };
    submodule = module: {
      name = "a set of options";
      check = isAttrs;
      merge = path: values: evalTree path module.options values;
    };
  };

  lib = {
    inherit types;
    inherit (builtins) attrNames concatStringsSep filter head mapAttrs;

    mkOption = option: option // {_type = "option";};
    mkEnableOption = what:
      lib.mkOption {
        type = types.bool;
        default = false;
        description = "Whether to have ${what}.";
      };
    mkIf = condition: content: {
      _type = "if";
      inherit condition content;
    };
    mkMerge = contents: {
      _type = "merge";
      inherit contents;
    };
    mkOverride = priority: content: {
      _type = "override";
      inherit priority content;
    };
    mkDefault = lib.mkOverride 1000;
    mkForce = lib.mkOverride 50;

    concatMapStringsSep = separator: call: list: lib.concatStringsSep separator (map call list);
    genAttrs = names: call:
      listToAttrs (map (name: {
          inherit name;
          value = call name;
        })
        names);
    inherit listToAttrs;
    nameValuePair = name: value: {inherit name value;};
    mapAttrs' = call: set: listToAttrs (attrValues (mapAttrs call set));
    mapAttrsToList = call: set: attrValues (mapAttrs call set);
    optional = condition: value:
      if condition
      then [value]
      else [];
    optionalAttrs = condition: value:
      if condition
      then value
      else {};
    hasPrefix = prefix: text: substring 0 (stringLength prefix) text == prefix;
    hasSuffix = suffix: text: let
      from = stringLength text - stringLength suffix;
    in
      from >= 0 && substring from (stringLength suffix) text == suffix;
    hasInfix = infix: text: length (lib.splitString infix text) > 1;
    splitString = separator: text: filter isString (builtins.split (quoted separator) text);
    toUpper = builtins.replaceStrings (lib.splitString "," "a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,t,u,v,w,x,y,z") (lib.splitString "," "A,B,C,D,E,F,G,H,I,J,K,L,M,N,O,P,Q,R,S,T,U,V,W,X,Y,Z");
    makeBinPath = packages: lib.concatMapStringsSep ":" (package: "${package}/bin") packages;
    fileset = {
      # A file that is missing is an error here as well.
      unions = files:
        if all builtins.pathExists files
        then files
        else throw "a file of a file set is missing: ${builtins.toJSON (map toString (filter (file: !builtins.pathExists file) files))}";
      toSource = {
        root,
        fileset,
      }:
        builtins.deepSeq fileset "/source${toString root}";
    };

    evalModules = {
      modules,
      specialArgs ? {},
    }: let
      arguments =
        specialArgs
        // {
          inherit lib;
          config = lazy;
        };
      parts = concatMap (collect arguments) modules;
      options = foldl' join {} (map (part: part.options) parts);
      definitions = map (part: part.config) parts;
      # What the modules see of each other: the same values, with no look at names that nobody declares.
      lazy = evalKnown [] options (concatMap pushDown definitions);
    in {
      inherit options;
      config = evalTree [] options definitions;
    };
  };

  quoted = text: builtins.replaceStrings ["." "/" "_" "+"] ["\\." "/" "_" "\\+"] text;
in
  lib
