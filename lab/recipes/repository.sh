# Turn a folder of lab/recipes into a recipe's git repository: annotated version tags, and a head that is not published.
# Sourced by `dev`. The same folder always gives the same commits.
#
# A recipe is a list of steps in the order of their names, `head` last: each is a folder that is laid over what was there
# (`1.0.0+1.0.0/`), a patch (`1.1.0+1.1.0.patch`), or both. A version's step is committed and tagged with its name.
# `variants/<name>.patch` is laid over the head: the same recipe with one thing wrong.

RECIPES=lab/recipes

# recipe NAME [--variant VARIANT]: print the path of the repository, after making it and the images that it needs.
recipe() {
  local name="" variant="" key target images
  while (($#)); do
    case "$1" in
      --variant)
        (($# > 1)) || fail "--variant needs a name."
        variant="$2"
        shift 2
        ;;
      --variant=*)
        variant="${1#*=}"
        shift
        ;;
      *)
        [[ -z $name ]] || fail "one recipe at a time: \"$name\" or \"$1\"?"
        name="$1"
        shift
        ;;
    esac
  done
  [[ -n $name && $name != */* && -f $RECIPES/$name/images ]] ||
    fail "there is no sample recipe \"$name\"." "hint: one of $(recipe_names)"
  [[ -z $variant || -f $RECIPES/$name/variants/$variant.patch ]] ||
    fail "the recipe $name has no variant \"$variant\"." "hint: one of $(recipe_variants "$name")"

  engine_up >&2
  images="$(tool_images && cat "$RECIPES/$name/images")"
  # shellcheck disable=SC2086  # one word each
  images_build $images >&2

  need_packages git:git >&2
  key="$({ folder_hash "$RECIPES/$name" && declare -f recipe_make recipe_commit && echo "$variant"; } | sha256sum)"
  # The last part of the path is the recipe's name, as in a clone. Another content is another path: nothing that
  # somebody reads is ever rewritten.
  target="$CACHE/recipes/${key:0:12}/$name"
  if [[ ! -d $target ]]; then
    mkdir -p "${target%/*}"
    exec 9>"${target%/*}/lock"
    flock 9
    if [[ ! -d $target ]]; then recipe_make "$name" "$variant" "$target" >&2; fi
    exec 9>&-
  fi
  echo "$target"
}

recipe_names() { (cd "$RECIPES" && printf '%s ' */) | tr -d /; }
recipe_variants() { (cd "$RECIPES/$1" && ls variants) 2>/dev/null | sed 's/\.patch$//' | tr '\n' ' '; }

recipe_make() {
  local name="$1" variant="$2" target="$3" work source="$PWD/$RECIPES/$1" step day=0
  say "making the repository of $name${variant:+, variant $variant}"
  work="$target.new"
  rm -rf "$work"
  # Nobody's configuration and no hook has a say: the commits are the same everywhere.
  export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
  git init --quiet --initial-branch=main --template= "$work"
  while read -r step; do
    day=$((day + 1))
    recipe_step "$source" "$step" "$work"
    if [[ $step == head ]]; then
      if [[ -n $variant ]]; then git -C "$work" apply "$source/variants/$variant.patch"; fi
      recipe_commit "$work" "$day" "$name: prepare the next version"
    else
      recipe_commit "$work" "$day" "$name: release $step"
      recipe_git "$work" "$day" tag --annotate --message "$name $step" "$step"
    fi
  done < <(recipe_steps "$source")
  unset GIT_CONFIG_GLOBAL GIT_CONFIG_NOSYSTEM
  mv "$work" "$target"
}

recipe_steps() {
  (cd "$1" && ls) | grep -E '^[0-9]+\.[0-9]+\.[0-9]+\+' | sed 's/\.patch$//' | sort -Vu
  echo head
}

recipe_step() {
  local source="$1" step="$2" work="$3"
  if [[ -d $source/$step ]]; then cp -R "$source/$step/." "$work"; fi
  find "$work" \( -name __pycache__ -o -name '.*_cache' \) -prune -exec rm -rf {} +
  if [[ -f $source/$step.patch ]]; then git -C "$work" apply "$source/$step.patch"; fi
}

recipe_commit() {
  local work="$1" day="$2"
  git -C "$work" add --all
  recipe_git "$work" "$day" commit --quiet --allow-empty --no-verify --message "$3"
}

# A made-up maintainer and one day per commit.
recipe_git() {
  local work="$1" date
  printf -v date '2024-03-%02dT12:00:00+00:00' "$2"
  shift 2
  GIT_AUTHOR_NAME=Maintainer GIT_AUTHOR_EMAIL=maintainer@example.org GIT_AUTHOR_DATE="$date" \
    GIT_COMMITTER_NAME=Maintainer GIT_COMMITTER_EMAIL=maintainer@example.org GIT_COMMITTER_DATE="$date" \
    git -C "$work" -c commit.gpgSign=false -c tag.gpgSign=false -c core.autocrlf=false "$@"
}
