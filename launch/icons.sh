# shellcheck shell=bash
# Sourced by local.sh: builds the data set icons from the npm package @iconify/json. Not a command of its own.

# The version that figures were measured with.
iconify=@iconify/json@2.2.535

# build_icons: fetches the package once, and builds both variants into data/, with a sheet of each split of icons.
build_icons() {
    local folder="${XDG_CACHE_HOME:-$HOME/.cache}/cbalign/iconify-${iconify##*@}" name
    if [ ! -f "$folder/package/collections.json" ]; then
        if ! command -v npm >/dev/null; then
            echo "The icons come from the npm package @iconify/json: install npm, or make $folder and unpack the package's .tgz there" >&2
            exit 2
        fi
        echo "Fetching $iconify (100 MB, once) into $folder"
        rm -rf "$folder/new" && mkdir -p "$folder/new"
        (cd "$folder/new" && npm pack --silent "$iconify" >/dev/null && tar -xzf ./*.tgz) || {
            echo "$iconify could not be fetched. If the network was down, run this again." >&2
            exit 1
        }
        # In one step, so that an interrupted fetch leaves no half of a package behind.
        mv "$folder/new/package" "$folder/package"
        rm -r "$folder/new"
    fi
    for name in icons icons/emoji; do
        cbalign data build "$name" --manual-dir="$folder/package" --data-dir=data
    done
    mkdir -p data
    (cd data && cbalign data show icons --data-dir=.)
}
